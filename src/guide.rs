//! Longer pages: the order of layers, what is observable, and which faults are survived.

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
