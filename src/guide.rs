//! Longer pages: troubleshooting, the order of layers, observability, and faults of a token endpoint.

#[cfg(not(doctest))]
pub mod troubleshooting {
    #![doc = include_str!("../docs/troubleshooting.md")]
}

#[cfg(any(not(doctest), feature = "testing"))]
#[cfg_attr(docsrs, doc(auto_cfg = false))]
pub mod composition {
    #![doc = include_str!("../docs/composition.md")]
}

#[cfg(not(doctest))]
pub mod observability {
    #![doc = include_str!("../docs/observability.md")]
}

#[cfg(not(doctest))]
pub mod faults {
    #![doc = include_str!("../docs/faults.md")]
}
