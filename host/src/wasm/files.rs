//! Opening files for connectors: regular files and folders, and nothing else. A pipe or a device in a granted folder would hold up a
//! thread of the host for as long as nobody answers. And only so many listings of folders at a time, because each is held as a whole.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::ReaddirIterator;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, ErrorCode, Host, HostDescriptor, OpenFlags, PathFlags,
};

use super::state::State;

/// Listings of folders that an instance may have at the same time.
pub(super) const LISTINGS_MAX: usize = 4;

type Asked = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);
type Opened = Result<Resource<Descriptor>, ErrorCode>;

/// Puts our opening in the place of the one that is linked already.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap_async("[method]descriptor.open-at", |store: StoreContextMut<'_, State>, asked: Asked| {
        Box::new(async move { Ok((open(store, asked).await?,)) })
    })?;
    types.func_wrap_async(
        "[method]descriptor.read-directory",
        |store: StoreContextMut<'_, State>, (folder,): (Resource<Descriptor>,)| {
            Box::new(async move { Ok((list(store, folder).await?,)) })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn list(
    mut store: StoreContextMut<'_, State>,
    folder: Resource<Descriptor>,
) -> wasmtime::Result<Result<Resource<ReaddirIterator>, ErrorCode>> {
    let open = store.data_mut().table.iter_mut().filter(|entry| entry.is::<ReaddirIterator>()).count();
    if open >= LISTINGS_MAX {
        return Ok(Err(ErrorCode::InsufficientMemory));
    }
    let mut files = store.data_mut().filesystem();
    match HostDescriptor::read_directory(&mut files, folder).await {
        Ok(listing) => Ok(Ok(listing)),
        Err(error) => Ok(Err(Host::convert_error_code(&mut files, error)?)),
    }
}

async fn open(
    mut store: StoreContextMut<'_, State>,
    (folder, path_flags, path, open_flags, flags): Asked,
) -> wasmtime::Result<Opened> {
    let mut files = store.data_mut().filesystem();
    let known = HostDescriptor::stat_at(&mut files, Resource::new_borrow(folder.rep()), path_flags, path.clone()).await;
    // What isn't there is told by the opening itself. What is replaced in between is the operator's doing: connectors write nothing.
    if let Ok(stat) = known
        && !matches!(stat.type_, DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink)
    {
        return Ok(Err(ErrorCode::NotPermitted));
    }
    match HostDescriptor::open_at(&mut files, folder, path_flags, path, open_flags, flags).await {
        Ok(opened) => Ok(Ok(opened)),
        Err(error) => Ok(Err(Host::convert_error_code(&mut files, error)?)),
    }
}
