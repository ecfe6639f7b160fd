//! Conversions between the wire and `model`.
