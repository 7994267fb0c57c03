//! The generated bindings of `wit/`. Owns nothing by itself, and is the only module with `unsafe` code.
//!
//! Authors meet these types under the names that the crate's root gives them. The streams of `tls` are those of the
//! `wasip2` crate, so that a socket opened with it can be handed to [`crate::net`].
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "connector",
    with: {
        "wasi:io/error@0.2.12": wasip2::io::error,
        "wasi:io/poll@0.2.12": wasip2::io::poll,
        "wasi:io/streams@0.2.12": wasip2::io::streams,
    },
    additional_derives: [PartialEq],
    pub_export_macro: true,
    export_macro_name: "__export_bindings",
    default_bindings_module: "tidewaiter_connector::bindings",
});
