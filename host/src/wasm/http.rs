//! `wasi:http` for connectors: linked, because guest languages import it whether they use it or not; every request is denied. No
//! capability of this host lets one out.

use http::{Request, Response};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::state::State;

/// Bytes of headers that a guest may hold in one collection.
const FIELDS_BYTES_MAX: usize = 64 * 1024;

/// The context of an instance.
pub(super) struct Http {
    ctx: WasiHttpCtx,
    hooks: Denied,
}

impl Http {
    pub(super) fn new() -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(FIELDS_BYTES_MAX);
        Self { ctx, hooks: Denied }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: &mut self.table, ctx: &mut self.http.ctx }
    }
}

struct Denied;

type Sending<T> = Box<dyn Future<Output = Result<T, Error>> + Send>;

impl WasiHttpHooks for Denied {
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Sending<()>,
    ) -> Sending<(Response<WasiBody>, Sending<()>)> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}
