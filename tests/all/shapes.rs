//! Components whose shape is the attack: imports, tables, memories and instances in numbers, code that takes long to compile, and code
//! that runs as soon as there is an instance. Written as text, because no compiler makes them.

use std::time::Duration;

use tidewaiter::wasm::{CompileError, Connector, Engine, EngineOptions, LoadError};
use tidewaiter_tests::{connector, program};

use crate::engine::script;

// Sections of a component, by what is in them.
const CORE_MODULE: u8 = 1;
const CORE_INSTANCE: u8 = 2;
const COMPONENT: u8 = 4;

/// A component with more in it: a core module, and instances of it, which begin when the component does.
fn with_module(mut component: Vec<u8>, module: &str, instances: usize) -> Vec<u8> {
    const HEADER: usize = 8;
    let (mut at, mut modules) = (HEADER, 0);
    while at < component.len() {
        modules += usize::from(component[at] == CORE_MODULE);
        let (size, begins) = leb(&component, at + 1);
        at = begins + size;
    }
    section(&mut component, CORE_MODULE, &wat::parse_str(module).unwrap());
    let mut made = to_leb(instances);
    for _ in 0..instances {
        // By a module, of this index, with nothing handed in.
        made.extend([&[0], to_leb(modules).as_slice(), &[0]].concat());
    }
    section(&mut component, CORE_INSTANCE, &made);
    component
}

fn section(component: &mut Vec<u8>, id: u8, content: &[u8]) {
    component.push(id);
    component.extend(to_leb(content.len()));
    component.extend(content);
}

/// A number, and where what follows begins.
fn leb(bytes: &[u8], at: usize) -> (usize, usize) {
    let (mut number, mut end) = (0, at);
    loop {
        number |= usize::from(bytes[end] & 0x7f) << (7 * (end - at));
        end += 1;
        if bytes[end - 1] & 0x80 == 0 {
            return (number, end);
        }
    }
}

fn to_leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

async fn load(options: &EngineOptions, bytes: &[u8]) -> Result<Connector, LoadError> {
    Connector::load(&Engine::new(options).unwrap(), &"hostile".parse().unwrap(), bytes).await
}

#[tokio::test]
async fn what_a_component_brings_along_is_bounded() {
    let hostile = std::fs::read(connector("hostile")).unwrap();
    let many = |what: &str, count: usize| format!("(module {})", what.repeat(count));
    let mut wrong = Vec::new();
    let start = |declared: &str, code: &str| format!("(module {declared} (func $s {code}) (start $s))");
    for (module, instances, part) in [
        ("(module (table 20001 funcref))".to_owned(), 1, "table"),
        (many("(table 1 funcref)", 65), 1, "table"),
        (many("(memory 1)", 33), 1, "memor"),
        ("(module (memory 65536))".to_owned(), 1, "memory"),
        ("(module (memory 2048))".to_owned(), 3, "memory"),
        ("(module)".to_owned(), 201, "instance"),
        (start("", "unreachable"), 1, "trapped"),
        (start("", "(call $s)"), 1, "the stack is used up"),
        (start("", "(loop $l (br $l))"), 1, "5000 ms"),
    ] {
        let refused = load(&EngineOptions::default(), &with_module(hostile.clone(), &module, instances)).await;
        let error = refused.expect_err(&module[..60.min(module.len())]).to_string();
        if !error.starts_with("connector hostile: ") || !error.contains(part) || error.chars().any(char::is_control) {
            wrong.push(format!("{module:.60}: {error:.300}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What can't grow beyond its limit goes on with what it has.
    let greedy = [
        start(
            "(table $t 1 funcref)",
            "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 999)) (i32.const -1))))",
        ),
        start("(memory 1)", "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))"),
    ];
    for module in greedy {
        load(&EngineOptions::default(), &with_module(hostile.clone(), &module, 1)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_connector_is_refused_whatever_its_size() {
    let imports = |count: usize, name: &str, of: &str| -> String {
        let imports = (0..count).map(|n| format!("(import \"{name}{n}\" ({of}))"));
        format!("(component {})", imports.collect::<String>())
    };
    let mut wrong = Vec::new();
    for (text, part) in [
        ("(module)".to_owned(), "not a WebAssembly component"),
        ("(component)".to_owned(), "doesn't implement"),
        (imports(900, "evil:a/b", "instance"), "imports evil:a/b"),
        (imports(10_000, "evil:a/b", "instance"), "exceeds limit"),
        (imports(10_000, "f", "func"), "imports f"),
        (imports(10_000, "m", "core module"), "exceeds limit"),
        (format!("(component {})", "(component)".repeat(2000)), "connector hostile: "),
    ] {
        let error = load(&EngineOptions::default(), &wat::parse_str(&text).unwrap()).await.unwrap_err().to_string();
        if !error.contains(part) || error.len() > 5000 {
            wrong.push(format!("{text:.60}: {error:.300}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let empty = wat::parse_str("(component)").unwrap();
    let mut nested = empty.clone();
    for _ in 0..5000 {
        let inner = std::mem::replace(&mut nested, empty.clone());
        section(&mut nested, COMPONENT, &inner);
    }
    let error = load(&EngineOptions::default(), &nested).await.unwrap_err().to_string();
    assert!(error.starts_with("connector hostile: "), "{error}");
}

/// Sixteen functions of as much code as a function may have: the compiler is ended, and the host goes on.
#[tokio::test]
async fn code_that_takes_too_long_to_compile_is_given_up() {
    let body = "local.get 0 local.get 0 i32.mul local.set 0 ".repeat(250_000);
    let module = format!("(module {})", format!("(func (param i32) {body})").repeat(16));
    let bomb = with_module(std::fs::read(connector("hostile")).unwrap(), &module, 1);
    let dir = tempfile::tempdir().unwrap();
    // Tells who it is, and becomes the compiler.
    let compiler =
        script(dir.path(), &format!("echo $$ > {0}/id; exec {1} \"$@\"", dir.path().display(), program().display()));
    let compile_time = Duration::from_millis(700);
    let options = EngineOptions { compiler: Some(compiler), compile_time, ..EngineOptions::default() };
    let error = load(&options, &bomb).await.unwrap_err();
    assert!(matches!(&error, LoadError::Compile { source: CompileError::TooLong(_), .. }), "{error}");
    let id = std::fs::read_to_string(dir.path().join("id")).unwrap();
    let line = || std::fs::read(format!("/proc/{}/cmdline", id.trim())).unwrap_or_default();
    // It may take a moment to give back what it held.
    for _ in 0..100 {
        if line().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the compiler goes on: {}", String::from_utf8_lossy(&line()));
}
