//! A TCP connection, in clear or through the host's TLS. `std::net` works too; this is for protocols that need TLS, which the
//! host does: the operator's trust roots, and client keys that no connector sees.
//!
//! ```no_run
//! # use tidewaiter_connector::{Error, net::Connection};
//! # fn ldap() -> Result<(), Error> {
//! let ldaps = Connection::open("ldap.corp", 636)?.into_tls("ldap.corp")?;
//! # Ok(()) }
//! ```
//!
//! Natively, as in tests, it is a connection of this machine's own, without TLS.

use std::io::{self, Read, Write};

use crate::Error;

/// A TCP connection.
#[derive(Debug)]
pub struct Connection(there::Connection);

impl Connection {
    /// Connects to the first address of the name that answers. Needs the capability `Tcp("HOST:PORT")`.
    pub fn open(host: &str, port: u16) -> Result<Self, Error> {
        there::open(host, port).map(Self)
    }

    /// Does the TLS handshake: at once for implicit TLS, after the protocol's own request for StartTLS and its like.
    pub fn into_tls(self, server_name: &str) -> Result<Self, Error> {
        there::into_tls(self.0, server_name).map(Self)
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(target_family = "wasm")]
mod there {
    use std::io::{self, Read, Write};

    use wasip2::io::streams::{InputStream, OutputStream, StreamError};
    use wasip2::sockets::instance_network::instance_network;
    use wasip2::sockets::ip_name_lookup::resolve_addresses;
    use wasip2::sockets::network::{
        ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
    };
    use wasip2::sockets::tcp::TcpSocket;
    use wasip2::sockets::tcp_create_socket::create_tcp_socket;

    use crate::Error;
    use crate::bindings::tidewaiter::connector::tls::{self, TlsError};

    /// The most that one write hands to a stream, by the rules of WASI.
    const WRITE_MAX: usize = 4096;

    /// The streams come before the socket that they belong to, because they must go first.
    #[derive(Debug)]
    pub(super) struct Connection {
        input: InputStream,
        output: OutputStream,
        _socket: TcpSocket,
    }

    pub(super) fn open(host: &str, port: u16) -> Result<Connection, Error> {
        let mut last = None;
        for address in resolve(host)? {
            match connect(address, port) {
                Ok(connection) => return Ok(connection),
                Err(code) => last = Some(code),
            }
        }
        let reason = last.map_or("the name has no address".to_owned(), |code| code.to_string());
        Err(Error::connection_failed(format!("{host}:{port}: {reason}")))
    }

    pub(super) fn into_tls(connection: Connection, server_name: &str) -> Result<Connection, Error> {
        let Connection { input, output, _socket } = connection;
        let refused = |error| {
            let (make, reason): (fn(String) -> Error, _) = match error {
                TlsError::NameNotGranted => (Error::permission_denied, "no granted TCP capability has this name"),
                TlsError::HandshakeFailed => (Error::connection_failed, "the handshake failed"),
                TlsError::UntrustedCertificate => (Error::connection_failed, "the certificate is not trusted"),
                TlsError::Closed => (Error::connection_broken, "the connection was closed"),
            };
            make(format!("TLS with {server_name}: {reason}"))
        };
        let (input, output) = tls::upgrade(server_name, input, output).map_err(refused)?;
        Ok(Connection { input, output, _socket })
    }

    impl Read for Connection {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if buffer.is_empty() {
                return Ok(0);
            }
            match self.input.blocking_read(buffer.len() as u64) {
                Ok(bytes) => {
                    buffer[..bytes.len()].copy_from_slice(&bytes);
                    Ok(bytes.len())
                }
                Err(StreamError::Closed) => Ok(0),
                Err(error) => Err(broken(error)),
            }
        }
    }

    impl Write for Connection {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let chunk = &bytes[..bytes.len().min(WRITE_MAX)];
            self.output.blocking_write_and_flush(chunk).map_err(broken)?;
            Ok(chunk.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.output.blocking_flush().map_err(broken)
        }
    }

    fn broken(error: StreamError) -> io::Error {
        match error {
            StreamError::Closed => io::ErrorKind::BrokenPipe.into(),
            StreamError::LastOperationFailed(error) => {
                io::Error::new(io::ErrorKind::ConnectionReset, error.to_debug_string())
            }
        }
    }

    fn resolve(host: &str) -> Result<Vec<IpAddress>, Error> {
        let failed = |code: ErrorCode| match code {
            ErrorCode::AccessDenied => {
                Error::permission_denied(format!("{host}: not among the granted TCP capabilities"))
            }
            code => Error::connection_failed(format!("{host}: {code}")),
        };
        let lookup = resolve_addresses(&instance_network(), host).map_err(failed)?;
        let ready = lookup.subscribe();
        let mut addresses = Vec::new();
        loop {
            match lookup.resolve_next_address() {
                Ok(Some(address)) => addresses.push(address),
                Ok(None) => return Ok(addresses),
                Err(ErrorCode::WouldBlock) => ready.block(),
                Err(code) => return Err(failed(code)),
            }
        }
    }

    fn connect(address: IpAddress, port: u16) -> Result<Connection, ErrorCode> {
        let (family, address) = match address {
            IpAddress::Ipv4(address) => {
                (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address }))
            }
            IpAddress::Ipv6(address) => (
                IpAddressFamily::Ipv6,
                IpSocketAddress::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 }),
            ),
        };
        let socket = create_tcp_socket(family)?;
        socket.start_connect(&instance_network(), address)?;
        loop {
            match socket.finish_connect() {
                Ok((input, output)) => {
                    return Ok(Connection { input, output, _socket: socket });
                }
                Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
                Err(code) => return Err(code),
            }
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod there {
    use std::net::TcpStream;

    use crate::{Context, Error};

    pub(super) type Connection = TcpStream;

    pub(super) fn open(host: &str, port: u16) -> Result<Connection, Error> {
        TcpStream::connect((host, port)).with_context(|| format!("{host}:{port}"))
    }

    pub(super) fn into_tls(_: Connection, server_name: &str) -> Result<Connection, Error> {
        Err(Error::unsupported(format!("TLS with {server_name}: it is the host's, and there is no host here")))
    }
}
