// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"slices"

	"golang.org/x/sys/unix"
)

// call is a system call that is allowed if its arguments match.
type call struct {
	name string
	args []arg // all must match
}

// arg is a condition on one argument.
type arg struct {
	index uint32
	is    comparison
	value uint64
}

type comparison int

const (
	equal  comparison = iota
	atMost            // unsigned
	has               // all bits of value, which is one bit
	hasNo             // none of the bits of value
)

// unknown are calls that fail with ENOSYS, as if the kernel did not have them:
// a filter cannot read the flags of clone3, and a program that gets ENOSYS uses
// clone instead.
var unknown = []string{"clone3"}

// bpfCommands are the commands that an agent needs: it opens pins, and reads
// and writes maps.
var bpfCommands = []uint64{
	unix.BPF_OBJ_GET, unix.BPF_OBJ_GET_INFO_BY_FD,
	unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_DELETE_ELEM, unix.BPF_MAP_GET_NEXT_KEY, unix.BPF_MAP_LOOKUP_AND_DELETE_ELEM,
	unix.BPF_MAP_LOOKUP_BATCH, unix.BPF_MAP_UPDATE_BATCH, unix.BPF_MAP_DELETE_BATCH,
}

// serving are the calls that an agent needs at work. It is an allow-list, as an
// agent needs nothing of what a later kernel adds. Its price is a test that
// does everything that an agent does.
var serving = slices.Concat(
	// Memory, without new code.
	always("brk", "madvise", "mincore", "munmap"),
	calls("mmap", arg{2, hasNo, unix.PROT_EXEC}),
	calls("mprotect", arg{2, hasNo, unix.PROT_EXEC}),
	calls("prctl", arg{0, equal, unix.PR_SET_VMA}), // Go names its memory
	// Threads, but no processes.
	calls("clone", arg{0, has, unix.CLONE_THREAD}),
	always("exit", "exit_group", "futex", "getpid", "gettid", "restart_syscall", "rseq", "rt_sigaction", "rt_sigprocmask",
		"rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "sigaltstack", "tgkill"),
	// Time and random numbers.
	always("clock_getres", "clock_gettime", "clock_nanosleep", "getrandom", "gettimeofday", "nanosleep"),
	// Files: Landlock and permissions restrict which.
	always("close", "faccessat", "faccessat2", "fcntl", "fstat", "fstatfs", "getdents64", "lseek", "newfstatat", "openat",
		"pread64", "read", "readlinkat", "readv", "stat", "statfs", "write", "writev"),
	// Waiting.
	always("epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "pipe2"),
	// TCP and UDP, and no other: Multipath TCP would pass Landlock by.
	calls("socket", arg{0, equal, unix.AF_INET}, arg{2, atMost, unix.IPPROTO_UDP}),
	calls("socket", arg{0, equal, unix.AF_INET6}, arg{2, atMost, unix.IPPROTO_UDP}),
	always("accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom", "recvmmsg",
		"recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown"),
	// Who we are.
	always("getegid", "geteuid", "getgid", "getppid", "getrlimit", "getuid", "prlimit64", "uname"),
	bpf(),
)

// starting are the calls that a container's profile must allow besides: those
// of a container runtime between the installation of the profile and our first
// instruction, those before main, and those of Process itself. They give no
// more privileges: a user without capabilities gains none by them.
var starting = slices.Concat(
	serving,
	always("access", "arch_prctl", "capget", "capset", "chdir", "close_range", "dup3", "execve", "fchdir", "fchown", "getcwd",
		"lstat", "mmap", "mprotect", "open", "prctl", "readlink", "seccomp", "set_tid_address", "setgid", "setgroups",
		"setresgid", "setresuid", "setuid", "tkill", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"),
)

func always(names ...string) (all []call) {
	for _, name := range names {
		all = append(all, call{name: name})
	}
	return all
}

func calls(name string, args ...arg) []call { return []call{{name, args}} }

func bpf() (all []call) {
	for _, command := range bpfCommands {
		all = append(all, call{"bpf", []arg{{0, equal, command}}})
	}
	return all
}
