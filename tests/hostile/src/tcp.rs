//! Opens the TCP connections that the setting `connections` lists, says hello over each, and says what came of it. A connection has
//! `to` (`HOST:PORT`), and `tls`: the name to speak TLS with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use serde_json::Value as Json;
use tidewaiter_connector::net::Connection;

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::setting;

/// What came of all, in one line.
pub(crate) fn connect_all() -> String {
    let connections = setting("connections");
    let said = connections.as_array().into_iter().flatten().map(|one| {
        // Of several attempts the last one tells.
        for _ in 1..one["times"].as_u64().unwrap_or(1) {
            let _ = connect(one);
        }
        connect(one).unwrap_or_else(|error| error)
    });
    said.collect::<Vec<_>>().join("; ")
}

fn connect(connection: &Json) -> Result<String, String> {
    let to = connection["to"].as_str().unwrap_or_default();
    let Some(name) = connection["tls"].as_str() else {
        return hello(TcpStream::connect(to).map_err(|error| refused(&error))?);
    };
    let (host, port) = to.rsplit_once(':').ok_or("no port")?;
    let clear = Connection::open(host, port.parse().map_err(|_| "no port")?).map_err(|error| error.to_string())?;
    hello(clear.into_tls(name).map_err(|error| error.to_string())?)
}

fn hello(mut stream: impl Read + Write) -> Result<String, String> {
    stream.write_all(b"hello\n").and_then(|()| stream.flush()).map_err(|error| refused(&error))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(|error| refused(&error))?;
    Ok(line.trim_end().to_owned())
}

fn refused(error: &std::io::Error) -> String {
    format!("refused {:?}", error.kind())
}

/// Everything with sockets that no connector may.
pub(crate) fn misuse() -> String {
    let told = |what: &str, refused: bool| format!("{what}: {}", if refused { "refused" } else { "done" });
    [
        told("listen", TcpListener::bind("0.0.0.0:0").is_err()),
        told("listen here", TcpListener::bind("127.0.0.1:0").is_err()),
        // The port is free, and only what is connected to is anybody's choice.
        told("bind here", bind([127, 0, 0, 1], 0).is_err()),
        told("bind a port", bind([0, 0, 0, 0], 9).is_err()),
        told("udp", UdpSocket::bind("0.0.0.0:0").is_err()),
        told("look up", "localhost:80".to_socket_addrs().is_err()),
        told("connect", TcpStream::connect("127.0.0.1:1").is_err()),
    ]
    .join("; ")
}

fn bind(address: [u8; 4], port: u16) -> Result<(), ErrorCode> {
    let [a, b, c, d] = address;
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    let local = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) });
    socket.start_bind(&instance_network(), local)?;
    socket.finish_bind()
}

/// Looks for servers on this machine.
pub(crate) fn scan() -> String {
    let found = (1..=1000).filter(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()).count();
    let metadata = TcpStream::connect("169.254.169.254:80").is_ok();
    format!("{found} of 1000 ports, metadata: {metadata}")
}

/// Reads as long as something comes.
pub(crate) fn read_on() -> String {
    let mut stream = match TcpStream::connect(setting("to").as_str().unwrap_or_default()) {
        Ok(stream) => stream,
        Err(error) => return refused(&error),
    };
    let mut bytes = 0;
    loop {
        match stream.read(&mut [0; 65_536]) {
            Ok(0) => return format!("{bytes} bytes"),
            Ok(more) => bytes += more,
            Err(error) => return refused(&error),
        }
    }
}

/// Writes, whether or not somebody reads.
pub(crate) fn write_on() -> String {
    let mut stream = match TcpStream::connect(setting("to").as_str().unwrap_or_default()) {
        Ok(stream) => stream,
        Err(error) => return refused(&error),
    };
    loop {
        if let Err(error) = stream.write_all(&[0; 65_536]) {
            return refused(&error);
        }
    }
}

/// How many connections may be open at the same time.
pub(crate) fn bomb() -> String {
    let to = setting("to");
    let mut open = Vec::new();
    loop {
        match TcpStream::connect(to.as_str().unwrap_or_default()) {
            Ok(stream) => open.push(stream),
            Err(error) => return format!("{} connections, then {}", open.len(), refused(&error)),
        }
        if open.len() > 1000 {
            return "more than 1000".into();
        }
    }
}

/// One after the other.
pub(crate) fn come_and_go() -> String {
    let to = setting("to");
    let said = (0..100).map(|_| {
        let stream = TcpStream::connect(to.as_str().unwrap_or_default()).map_err(|error| refused(&error))?;
        hello(stream)
    });
    said.collect::<Result<Vec<_>, _>>().map_or_else(|error| error, |said| format!("{} times", said.len()))
}
