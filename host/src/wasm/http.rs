//! `wasi:http` for connectors: hands requests over to the egress, and tells the guest what came of them. Linked even where nothing
//! may leave, because guest languages import it whether they use it or not. Decides nothing.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::types::{HostOutgoingRequest as OutgoingRequestHost, Method};
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::state::State;
use crate::egress::{BoxError, EgressError, Outgoing, Times};

/// Bytes of headers that a guest may hold in one collection.
pub(super) const FIELDS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a body that one write of a guest hands over.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The context of an instance.
pub(super) struct Http {
    ctx: WasiHttpCtx,
    hooks: WayOut,
}

impl Http {
    /// None: nothing leaves.
    pub(super) fn new(outgoing: Option<Arc<Outgoing>>) -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(FIELDS_BYTES_MAX);
        Self { ctx, hooks: WayOut(outgoing) }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.count_resources();
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: &mut self.table, ctx: &mut self.http.ctx }
    }
}

/// The longest method that is sent, in bytes; the longest of HTTP's registry has 17.
const METHOD_BYTES_MAX: usize = 32;
/// The longest authority: a name of 253 bytes and a port.
const AUTHORITY_BYTES_MAX: usize = 300;

/// Puts bounds on what a request is made of, where the engine has none: it would hold it outside the guest's memory.
pub(super) fn bound(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut store: StoreContextMut<'_, State>, (request, method): (Resource<HostOutgoingRequest>, Method)| {
            if matches!(&method, Method::Other(name) if name.len() > METHOD_BYTES_MAX) {
                return Ok((Err(()),));
            }
            Ok((OutgoingRequestHost::set_method(&mut store.data_mut().http(), request, method)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut store: StoreContextMut<'_, State>, (request, to): (Resource<HostOutgoingRequest>, Option<String>)| {
            if to.as_ref().is_some_and(|to| to.len() > AUTHORITY_BYTES_MAX) {
                return Ok((Err(()),));
            }
            Ok((OutgoingRequestHost::set_authority(&mut store.data_mut().http(), request, to)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

struct WayOut(Option<Arc<Outgoing>>);

type Sending<T> = Box<dyn Future<Output = Result<T, Error>> + Send>;

impl WasiHttpHooks for WayOut {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Sending<()>,
    ) -> Sending<(Response<WasiBody>, Sending<()>)> {
        let Some(outgoing) = self.0.clone() else { return Box::new(async { Err(Error::HttpRequestDenied) }) };
        let options = options.unwrap_or_default();
        let times = Times::clamped(options.connect_timeout, options.first_byte_timeout, options.between_bytes_timeout);
        let request = request.map(|body| body.map_err(|error| Box::new(error) as BoxError).boxed_unsync());
        Box::new(async move {
            let response = outgoing.send(request, times).await.map_err(|error| told(&error))?;
            let response = response.map(|body| body.map_err(|error| broken(error.as_ref())).boxed_unsync());
            Ok((response, Box::new(async { Ok(()) }) as Sending<()>))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// What a guest is told of a request that failed: a code, and none of our words.
fn told(error: &EgressError) -> Error {
    match error {
        EgressError::Denied(_)
        | EgressError::Name(_)
        | EgressError::Many { .. }
        | EgressError::Logins { .. }
        | EgressError::Refused { .. } => Error::HttpRequestDenied,
        EgressError::Destination(_) => Error::HttpRequestUriInvalid,
        EgressError::Method(_) => Error::HttpRequestMethodInvalid,
        EgressError::Url { .. } => Error::HttpRequestUriTooLong,
        EgressError::Resolve { .. } => Error::DnsError { rcode: None, info_code: None },
        EgressError::Address { .. } => Error::DestinationIpProhibited,
        EgressError::Busy { .. } => Error::ConnectionLimitReached,
        EgressError::Connect { .. } => Error::ConnectionRefused,
        EgressError::Tls { untrusted: true, .. } => Error::TlsCertificateError,
        EgressError::Tls { .. } => Error::TlsProtocolError,
        EgressError::Credential { .. } => Error::ConfigurationError,
        EgressError::TimedOut { .. } => Error::ConnectionTimeout,
        EgressError::ResponseSize { max } => Error::HttpResponseBodySize(Some(*max)),
        EgressError::Protocol { .. } => Error::HttpProtocolError,
    }
}

fn broken(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Error {
    error.downcast_ref::<EgressError>().map_or(Error::HttpResponseIncomplete, told)
}
