//! Sockets for connectors: `wasi:sockets` as it is, but for what has to ask our egress first: names that are looked up, sockets that
//! are made, addresses that are connected to. Nothing listens, and there is no UDP.

use std::net::IpAddr;
use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, Host as NetworkHost, IpAddress, IpAddressFamily, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as Create;
use wasmtime_wasi::p2::{DynPollable, Pollable, TcpSocket, subscribe};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsView};

use super::state::State;
use crate::egress::{EgressError, Outgoing};

/// What a name led to, as far as it was not asked for yet.
struct Found(std::vec::IntoIter<IpAddr>);

#[wasmtime_wasi::async_trait]
impl Pollable for Found {
    async fn ready(&mut self) {}
}

/// Lets a guest connect where our egress does.
pub(super) fn open(builder: &mut WasiCtxBuilder, outgoing: &Arc<Outgoing>) {
    let outgoing = Arc::clone(outgoing);
    builder.allow_tcp(true);
    builder.socket_addr_check(move |address, used_for| {
        let allowed = match used_for {
            // Connecting binds to whatever is free, too.
            SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
            SocketAddrUse::TcpConnect => outgoing.connects(address).is_ok(),
            SocketAddrUse::TcpListen
            | SocketAddrUse::TcpAccept
            | SocketAddrUse::UdpBind
            | SocketAddrUse::UdpSend
            | SocketAddrUse::UdpReceive => false,
        };
        Box::pin(std::future::ready(allowed))
    });
}

/// Puts our own lookup, and our own making of sockets, in the place of those that are linked already.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut lookup = linker.instance("wasi:sockets/ip-name-lookup@0.2.12")?;
    lookup.resource("resolve-address-stream", ResourceType::host::<Found>(), |mut store, rep| {
        store.data_mut().table.delete(Resource::<Found>::new_own(rep))?;
        Ok(())
    })?;
    lookup.func_wrap_async(
        "resolve-addresses",
        |store: StoreContextMut<'_, State>, (network, name): (Resource<Network>, String)| {
            Box::new(async move { Ok((resolve(store, &network, &name).await?,)) })
        },
    )?;
    lookup.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, State>, (found,): (Resource<Found>,)| {
            let next = store.data_mut().table.get_mut(&found)?.0.next();
            Ok((Ok::<_, ErrorCode>(next.map(IpAddress::from)),))
        },
    )?;
    lookup.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, State>, (found,): (Resource<Found>,)| {
            let pollable: Resource<DynPollable> = subscribe(&mut store.data_mut().table, found)?;
            Ok((pollable,))
        },
    )?;
    let mut create = linker.instance("wasi:sockets/tcp-create-socket@0.2.12")?;
    create.func_wrap_async(
        "create-tcp-socket",
        |store: StoreContextMut<'_, State>, (family,): (IpAddressFamily,)| {
            Box::new(async move { Ok((create_socket(store, family).await?,)) })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn resolve(
    mut store: StoreContextMut<'_, State>,
    network: &Resource<Network>,
    name: &str,
) -> wasmtime::Result<Result<Resource<Found>, ErrorCode>> {
    let state = store.data_mut();
    state.table.get(network)?;
    let Some(outgoing) = state.outgoing.clone() else { return Ok(Err(ErrorCode::AccessDenied)) };
    match outgoing.lookup(name).await {
        Ok(addresses) => Ok(Ok(store.data_mut().table.push(Found(addresses.into_iter()))?)),
        Err(error) => Ok(Err(code(&error))),
    }
}

async fn create_socket(
    mut store: StoreContextMut<'_, State>,
    family: IpAddressFamily,
) -> wasmtime::Result<Result<Resource<TcpSocket>, ErrorCode>> {
    let state = store.data_mut();
    let Some(outgoing) = state.outgoing.clone() else { return Ok(Err(ErrorCode::AccessDenied)) };
    let open = state.table.iter_mut().filter(|entry| entry.is::<TcpSocket>()).count();
    if let Err(error) = outgoing.socket(open).await {
        return Ok(Err(code(&error)));
    }
    let mut sockets = store.data_mut().sockets();
    match Create::create_tcp_socket(&mut sockets, family) {
        Ok(socket) => Ok(Ok(socket)),
        Err(error) => Ok(Err(NetworkHost::convert_error_code(&mut sockets, error)?)),
    }
}

fn code(error: &EgressError) -> ErrorCode {
    match error {
        EgressError::Resolve { .. } => ErrorCode::NameUnresolvable,
        EgressError::TimedOut { .. } => ErrorCode::TemporaryResolverFailure,
        EgressError::Busy { .. } | EgressError::Many { .. } => ErrorCode::NewSocketLimit,
        EgressError::Destination(_) => ErrorCode::InvalidArgument,
        _ => ErrorCode::AccessDenied,
    }
}
