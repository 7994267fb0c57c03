//! Opening files for connectors: regular files and folders, and nothing else. A pipe or a device in a granted folder would hold up a
//! thread of the host for as long as nobody answers.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, ErrorCode, Host, HostDescriptor, OpenFlags, PathFlags,
};

use super::state::State;

type Asked = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);
type Opened = Result<Resource<Descriptor>, ErrorCode>;

/// Puts our opening in the place of the one that is linked already.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap_async("[method]descriptor.open-at", |store: StoreContextMut<'_, State>, asked: Asked| {
        Box::new(async move { Ok((open(store, asked).await?,)) })
    })?;
    linker.allow_shadowing(false);
    Ok(())
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
