//! Time must not tell secrets: neither jumps nor addresses may depend on a key, a plaintext or a tag. Three witnesses: memcheck, which follows every bit
//! that comes from a secret, but knows no AVX-512; the steps that the processor takes, which must be the same for two secrets; and the compiled code, in
//! which nothing may lead from a vector to a jump.

use super::{Random, lanes, run};
use crate::group::Direction;
use crate::kernel::Kind;
use crate::{Kernel, Key};
use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::process::{Command, Output};

const DIRECTIONS: [Direction; 2] = [Direction::Seal, Direction::Open];

/// What one of two runs works on: all of it secret.
struct Secrets {
    key: Key,
    nonces: Vec<[u8; 12]>,
    buffer: Vec<u8>,
    starts: Vec<usize>,
}

impl Secrets {
    fn new(kernel: Kernel, seed: u64, len: usize) -> Self {
        let mut random = Random(seed);
        let count = kernel.width() - 1;
        let mut buffer = vec![0; count * len];
        random.fill(&mut buffer);
        Self {
            key: Key::new(&random.bytes()),
            nonces: (0..count).map(|_| random.bytes()).collect(),
            starts: (0..count).map(|n| n * len).collect(),
            buffer,
        }
    }
}

// ── memcheck ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Set in the process that runs under memcheck: what it shall do.
const ROLE: &str = "THICKET_AEAD_MEMCHECK";

/// Asks valgrind for something (see valgrind.h); does nothing, and returns `default`, on a processor of its own.
#[cfg(target_arch = "x86_64")]
fn ask_valgrind(default: usize, request: usize, address: *const u8, len: usize) -> usize {
    let arguments = [request, address as usize, len, 0, 0, 0];
    let mut answer = default;
    // SAFETY: rotates a register by 128 bits in all and exchanges another with itself; valgrind knows the sequence.
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") &arguments,
            inout("rdx") answer,
            inout("rdi") 0usize => _,
        );
    }
    answer
}

const RUNNING_ON_VALGRIND: usize = 0x1001;
const MAKE_UNDEFINED: usize = 0x4d43_0001;
const MAKE_DEFINED: usize = 0x4d43_0002;

fn mark(request: usize, bytes: &[u8]) {
    ask_valgrind(0, request, bytes.as_ptr(), bytes.len());
}

fn as_bytes(words: &[u32; 8]) -> &[u8] {
    // SAFETY: any word is four bytes.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), 32) }
}

fn memcheck(role: &str) -> Output {
    Command::new("valgrind")
        .args(["--quiet", "--error-exitcode=99"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tests::constant_time::what_memcheck_watches",
            "--test-threads=1",
            "--nocapture",
        ])
        .env(ROLE, role)
        .output()
        .expect("valgrind is missing: apt-get install valgrind")
}

#[test]
fn memcheck_sees_no_jump_and_no_address_that_depends_on_a_secret() {
    let output = memcheck("lanes");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // It was watching: one honest jump on a secret, and one address, are found.
    for role in ["jump", "address"] {
        let output = memcheck(role);
        assert_eq!(
            output.status.code(),
            Some(99),
            "{role}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn what_memcheck_watches() {
    let Ok(role) = std::env::var(ROLE) else { return };
    assert_ne!(ask_valgrind(0, RUNNING_ON_VALGRIND, core::ptr::null(), 0), 0);
    let mut seen = 0;
    for kernel in lanes() {
        for len in [0, 1, 16, 63, 64, 65, 200] {
            for direction in DIRECTIONS {
                let mut secrets = Secrets::new(kernel, 9, len);
                mark(MAKE_UNDEFINED, as_bytes(secrets.key.words()));
                mark(MAKE_UNDEFINED, &secrets.buffer);
                let Secrets {
                    key,
                    nonces,
                    buffer,
                    starts,
                } = &mut secrets;
                match role.as_str() {
                    "jump" if len > 0 => {
                        if buffer[0] > 9 {
                            drop(black_box(vec![1]));
                        }
                    }
                    "address" if len > 0 => drop(black_box(nonces[usize::from(buffer[0]) % 3])),
                    _ => drop(run(kernel, key, &[7; 20], buffer, starts, len, nonces, direction)),
                }
                mark(MAKE_DEFINED, as_bytes(secrets.key.words()));
                mark(MAKE_DEFINED, &secrets.buffer);
                seen += 1;
            }
        }
    }
    assert!(seen > 0 || !std::arch::is_x86_feature_detected!("avx2"));
}

// ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A hash of all instruction addresses so far, and how many there were.
static PATH: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);

extern "C" fn step(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a context to a handler installed with SA_SIGINFO.
    let at = unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] };
    PATH.store(
        (PATH.load(Relaxed) ^ at.cast_unsigned())
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(23),
        Relaxed,
    );
    STEPS.store(STEPS.load(Relaxed) + 1, Relaxed);
}

/// The path that the processor takes through a group: its hash and its length.
fn path(kernel: Kernel, mut secrets: Secrets, buffer: &mut [u8], len: usize, direction: Direction) -> (u64, u64) {
    let buffer = &mut buffer[..secrets.buffer.len()];
    buffer.copy_from_slice(&secrets.buffer);
    secrets.buffer = Vec::new();
    PATH.store(0, Relaxed);
    STEPS.store(0, Relaxed);
    // SAFETY: sets the trap flag, and clears it again: each instruction between is followed by the handler.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let tags = run(
        kernel,
        &secrets.key,
        &[7; 20],
        buffer,
        &secrets.starts,
        len,
        &secrets.nonces,
        direction,
    );
    // SAFETY: as above.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    black_box(tags);
    (PATH.load(Relaxed), STEPS.load(Relaxed))
}

#[test]
fn the_processor_takes_the_same_steps_whatever_the_secrets() {
    // SAFETY: installs a handler that does nothing but count.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = step as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &action, core::ptr::null_mut()), 0);
    }
    let mut buffer = vec![0; 4_096];
    // WebAssembly's are other instructions there; memcheck has seen that their source holds.
    for kernel in lanes().filter(|kernel| !matches!(kernel.0, Kind::Four | Kind::One)) {
        for len in [0, 40, 64, 150] {
            for direction in DIRECTIONS {
                let mut paths = [10, 10, 11, 12].map(|seed| {
                    let secrets = Secrets::new(kernel, seed, len);
                    path(kernel, secrets, &mut buffer, len, direction)
                });
                // The first one loads what is loaded lazily.
                paths[0] = paths[1];
                assert!(paths[0].1 > 1_000, "{kernel}: only {} steps", paths[0].1);
                assert!(
                    paths.iter().all(|path| *path == paths[0]),
                    "{kernel}: {len} bytes: {paths:?}"
                );
            }
        }
        // Lengths are no secrets, and the witness does see them.
        let [short, long] =
            [60, 61].map(|len| path(kernel, Secrets::new(kernel, 10, len), &mut buffer, len, DIRECTIONS[0]));
        let other = path(kernel, Secrets::new(kernel, 10, 140), &mut buffer, 140, DIRECTIONS[0]);
        assert!(other != short && other != long);
    }
}

// ── the compiled code ────────────────────────────────────────────────────────────────────────────────────────────────

/// From vectors or masks into flags or general registers; lookups by vector; and divisions, whose time depends on their numbers.
const FORBIDDEN: [&str; 16] = [
    "kortest",
    "ktest",
    "vptest ",
    "vtestp",
    "vucomis",
    "vcomis",
    "vpextr",
    "vextractps",
    "vmovmsk",
    "vpmovmsk",
    "gather",
    "scatter",
    "div ",
    "divq",
    "divl",
    "vmovd ",
];

#[test]
fn in_the_compiled_code_nothing_leads_from_a_vector_to_a_jump() {
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", "-C", "-M", "intel"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .expect("objdump is missing: apt-get install binutils");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut functions = 0;
    let mut products = 0;
    for function in text.split("\n\n") {
        let name = function.trim_start().lines().next().unwrap_or("");
        if !name.contains("<thicket_aead::avx512::") || name.contains("::tests::") || name.contains("Avx512>::") {
            continue;
        }
        functions += 1;
        // The last instruction that set flags.
        let mut flags = "";
        for line in function.lines().skip(1) {
            let Some((_, instruction)) = line.split_once('\t') else {
                continue;
            };
            let instruction = instruction.trim();
            products += usize::from(instruction.starts_with("vpmadd52"));
            for forbidden in FORBIDDEN {
                assert!(!instruction.contains(forbidden), "{name} {instruction}");
            }
            let (operation, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
            let target = operands.trim().split(',').next().unwrap_or("");
            let general = !target.contains("mm") && !target.starts_with('k');
            // A vector's or a mask's content in a general register.
            if operation.starts_with("vmovq") || operation.starts_with("kmov") {
                assert!(!general || target.contains('['), "{name} {instruction}");
            }
            if operation.starts_with('j') && operation != "jmp"
                || operation.starts_with("cmov")
                || operation.starts_with("set")
            {
                assert!(
                    !flags.is_empty() && !flags.contains("mm") && !flags.contains('['),
                    "{name} {flags}; {instruction}"
                );
            }
            if [
                "cmp", "test", "add", "sub", "inc", "dec", "and", "or", "xor", "neg", "shl", "shr", "sar",
            ]
            .contains(&operation)
            {
                flags = instruction;
            }
        }
    }
    assert!(
        functions >= 2 && products >= 100,
        "{functions} functions, {products} products: has the program its symbols (release builds are stripped)?"
    );
}
