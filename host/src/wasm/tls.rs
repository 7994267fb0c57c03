//! TLS for connectors: a guest hands its connection's two streams over, and gets streams of plain bytes in their place.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::pipe::{AsyncReadStream, AsyncWriteStream};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, StreamError};

use super::bindings::tidewaiter::connector::tls::TlsError;
use super::state::State;
use crate::egress::EgressError;

/// Bytes that wait to be encrypted. As much as a record of TLS has.
const WAITING_BYTES_MAX: usize = 16 * 1024;

/// Both streams.
pub(super) type Streams = (Resource<DynInputStream>, Resource<DynOutputStream>);

/// See `wit/imports.wit`.
pub(super) async fn upgrade(
    state: &mut State,
    server_name: &str,
    (input, output): Streams,
) -> wasmtime::Result<Result<Streams, TlsError>> {
    let transport =
        Transport { input: Half::Idle(state.table.delete(input)?), output: Half::Idle(state.table.delete(output)?) };
    let Some(outgoing) = state.outgoing.clone() else { return Ok(Err(TlsError::NameNotGranted)) };
    let stream = match outgoing.tls(server_name, transport).await {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(code(&error))),
    };
    let (read, write) = tokio::io::split(stream);
    let (input, output) = (AsyncReadStream::new(read), AsyncWriteStream::new(WAITING_BYTES_MAX, write));
    let input: DynInputStream = Box::new(input);
    let output: DynOutputStream = Box::new(output);
    Ok(Ok((state.table.push(input)?, state.table.push(output)?)))
}

fn code(error: &EgressError) -> TlsError {
    match error {
        EgressError::Tls { untrusted: true, .. } => TlsError::UntrustedCertificate,
        EgressError::Tls { .. } | EgressError::TimedOut { .. } | EgressError::Credential { .. } => {
            TlsError::HandshakeFailed
        }
        EgressError::Protocol { .. } => TlsError::Closed,
        _ => TlsError::NameNotGranted,
    }
}

/// A guest's streams as bytes that go both ways.
struct Transport {
    input: Half<DynInputStream>,
    output: Half<DynOutputStream>,
}

/// One direction. While it waits, the waiting has the stream.
enum Half<S> {
    Idle(S),
    Waiting(Pin<Box<dyn Future<Output = S> + Send>>),
    Closed,
}

impl<S: 'static> Half<S> {
    /// The stream, once it may be worked with.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut S>> {
        if let Self::Waiting(waiting) = self {
            *self = Self::Idle(ready!(waiting.as_mut().poll(context)));
        }
        match self {
            Self::Idle(stream) => Poll::Ready(Ok(stream)),
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn wait(&mut self, until_ready: impl FnOnce(S) -> Pin<Box<dyn Future<Output = S> + Send>>) {
        if let Self::Idle(stream) = std::mem::replace(self, Self::Closed) {
            *self = Self::Waiting(until_ready(stream));
        }
    }
}

fn input_ready(mut stream: DynInputStream) -> Pin<Box<dyn Future<Output = DynInputStream> + Send>> {
    Box::pin(async move {
        stream.ready().await;
        stream
    })
}

fn output_ready(mut stream: DynOutputStream) -> Pin<Box<dyn Future<Output = DynOutputStream> + Send>> {
    Box::pin(async move {
        stream.ready().await;
        stream
    })
}

fn io_error(error: StreamError) -> io::Error {
    match error {
        StreamError::Closed => io::ErrorKind::BrokenPipe.into(),
        StreamError::LastOperationFailed(error) | StreamError::Trap(error) => io::Error::other(error.to_string()),
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let stream = match ready!(self.input.poll_idle(context)) {
                Ok(stream) => stream,
                // The end was told already.
                Err(_) => return Poll::Ready(Ok(())),
            };
            match stream.read(into.remaining()) {
                Ok(bytes) if bytes.is_empty() => self.input.wait(input_ready),
                Ok(bytes) => {
                    into.put_slice(&bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(StreamError::Closed) => {
                    self.input = Half::Closed;
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(io_error(error))),
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let stream = ready!(self.output.poll_idle(context))?;
            match stream.check_write().map_err(io_error)? {
                0 => self.output.wait(output_ready),
                room => {
                    let taken = room.min(bytes.len());
                    stream.write(Bytes::copy_from_slice(&bytes[..taken])).map_err(io_error)?;
                    return Poll::Ready(Ok(taken));
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = ready!(self.output.poll_idle(context))?;
        // A flush is over once there is room to write again.
        stream.flush().map_err(io_error)?;
        loop {
            let stream = ready!(self.output.poll_idle(context))?;
            match stream.check_write().map_err(io_error)? {
                0 => self.output.wait(output_ready),
                _ => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        self.output = Half::Closed;
        Poll::Ready(Ok(()))
    }
}
