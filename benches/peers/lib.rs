//! Only its bench is of use.
