package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

const seccompProfile = "compose/seccomp.json"

// allowance is a system call that the profile allows, on every condition of Args.
type allowance struct {
	Name string
	Args []condition
}

// condition is on one argument, all 64 bits of it.
type condition struct {
	Index int
	Value uint64
	Op    string
}

// readSeccomp reads the profile as Docker does; fields that Docker does not know fail the test.
func readSeccomp(t *testing.T) (allowed []allowance) {
	t.Helper()
	text, err := os.ReadFile(seccompProfile)
	if err != nil {
		t.Fatal(err)
	}
	var profile struct {
		DefaultAction   string
		DefaultErrnoRet uint
		ArchMap         []struct {
			Architecture     string
			SubArchitectures []string
		}
		Syscalls []struct {
			Names           []string
			Action, Comment string
			Args            []condition
		}
	}
	in := json.NewDecoder(strings.NewReader(string(text)))
	in.DisallowUnknownFields()
	if err := in.Decode(&profile); err != nil {
		t.Fatal(err)
	}
	if profile.DefaultAction != "SCMP_ACT_ERRNO" || profile.DefaultErrnoRet != uint(syscall.EPERM) || len(profile.ArchMap) != 2 {
		t.Errorf("what is not allowed is not refused: %s %d", profile.DefaultAction, profile.DefaultErrnoRet)
	}
	for _, s := range profile.Syscalls {
		if s.Action != "SCMP_ACT_ALLOW" {
			t.Errorf("%v: %s", s.Names, s.Action)
		}
		for _, arg := range s.Args {
			if len(s.Args) > 1 || arg.Op != "SCMP_CMP_LT" || arg.Value == 0 || arg.Value>>32 != 0 || arg.Index < 0 || arg.Index > 5 {
				t.Fatalf("%v: %v is a condition that this test makes no filter of", s.Names, s.Args)
			}
		}
		for _, name := range s.Names {
			allowed = append(allowed, allowance{name, s.Args})
		}
	}
	return allowed
}

// TestSeccompProfile: what the sandbox needs is allowed, what leads out of a container is not.
func TestSeccompProfile(t *testing.T) {
	var allowed []string
	for _, call := range readSeccomp(t) {
		allowed = append(allowed, call.Name)
		if (call.Args != nil) != (call.Name == "socket") {
			t.Errorf("%s is allowed on the condition %v", call.Name, call.Args)
		}
	}
	for _, name := range []string{"clone", "clone3", "unshare", "setns", "chroot", "seccomp", "execve", "futex"} {
		if !slices.Contains(allowed, name) {
			t.Errorf("%s is refused", name)
		}
	}
	for _, name := range []string{"mount", "umount2", "pivot_root", "ptrace", "bpf", "keyctl", "kexec_load", "init_module", "perf_event_open",
		"open_by_handle_at", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "userfaultfd", "io_uring_setup", "reboot", "swapon", "settimeofday"} {
		if slices.Contains(allowed, name) {
			t.Errorf("%s is allowed", name)
		}
	}
	if slices.Sort(allowed); len(slices.Compact(slices.Clone(allowed))) != len(allowed) {
		t.Error("names are there twice")
	}
	compose, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(compose), `"seccomp=`+filepath.Base(seccompProfile)+`"`) {
		t.Error("compose does not use the profile")
	}
}

// rule is an allowance by number.
type rule struct {
	Number uint32
	Args   []condition
}

// TestChromiumsSandboxStartsUnderTheSeccompProfile starts the browser as the image's user, with its
// sandbox, under the filter that an engine makes of the profile; and asks the kernel for what that
// refuses.
func TestChromiumsSandboxStartsUnderTheSeccompProfile(t *testing.T) {
	const browser = "/usr/lib/chromium/chromium-headless-shell"
	header := "/usr/include/" + "x86_64-linux-gnu/asm/unistd_64.h"
	if runtime.GOARCH != "amd64" || runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs Linux on amd64, and root to become the image's user")
	}
	table, err := os.ReadFile(header)
	if err != nil {
		t.Skip("no table of system calls: " + err.Error())
	}
	numbers := map[string]uint32{}
	for _, found := range regexp.MustCompile(`#define __NR_(\w+) (\d+)`).FindAllStringSubmatch(string(table), -1) {
		n, err := strconv.ParseUint(found[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[found[1]] = uint32(n)
	}
	var rules []rule
	for _, call := range readSeccomp(t) {
		if n, ok := numbers[call.Name]; ok { // a kernel of another age does not have all
			rules = append(rules, rule{n, call.Args})
		}
	}
	filter, err := json.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("/tmp", "seccomp-") // t.TempDir is root's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	self := filepath.Join(home, "self")
	text, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(self, text, 0o755) //nolint:gosec // another user runs it
	}
	if err == nil {
		err = os.Chmod(home, 0o777) //nolint:gosec // another user writes there
	}
	if err != nil {
		t.Fatal(err)
	}
	start := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestSeccompHelper$")
		cmd.Dir = home
		cmd.Env = []string{"SECCOMP_FILTER=" + string(filter), "SECCOMP_RUN=" + strings.Join(args, "\n"),
			"HOME=" + home, "TMPDIR=" + home, "PATH=" + os.Getenv("PATH")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := start(browser, "--disable-gpu", "--user-data-dir="+home+"/profile", "--dump-dom", "data:text/html,<script>document.write(6*7)</script>")
	if err != nil || !strings.Contains(out, "42") {
		t.Errorf("the browser does not show its page: %v\n%s", err, out)
	}
	if out, err := start("/usr/bin/unshare", "--user", "--map-root-user", "--mount", "true"); err == nil {
		t.Errorf("a mount inside a user namespace is let through: %s", out)
	}
	out, err = start(self, "-test.run=^TestSeccompProbe$", "-test.v")
	if err != nil || !strings.Contains(out, "the kernel was asked") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestSeccompProbe is no test of its own: it asks the kernel under the filter for what is refused.
func TestSeccompProbe(t *testing.T) {
	if os.Getenv("SECCOMP_FILTER") == "" {
		return
	}
	const (
		unix, inet, netlink, inet6 = 1, 2, 16, 10
		alg, vsock                 = 38, 40
		upper                      = 1 << 32 // a bit that the kernel drops from an int
		pidfdGetfd                 = 438
	)
	for _, family := range []uintptr{unix, inet, netlink, inet6} {
		fd, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, family, syscall.SOCK_DGRAM, 0)
		if errno != 0 && errno != syscall.EAFNOSUPPORT { // a machine may be without IPv6
			t.Errorf("a socket of the family %d: %v", family, errno)
		}
		if errno == 0 {
			_ = syscall.Close(int(fd)) //nolint:gosec // a descriptor
		}
	}
	for _, family := range []uintptr{alg, vsock, upper | vsock, upper | unix} {
		// No socket has that type: EINVAL is what a kernel says that is asked.
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, family, 15, 0); errno != syscall.EPERM {
			t.Errorf("a socket of the family %#x gets to the kernel, which says: %v", family, errno)
		}
	}
	none := ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(pidfdGetfd, none, none, 0); errno != syscall.EPERM {
		t.Errorf("pidfd_getfd gets to the kernel, which says: %v", errno)
	}
	t.Log("the kernel was asked")
}

// TestSeccompHelper is no test: it puts itself under the filter and becomes the program.
func TestSeccompHelper(t *testing.T) {
	filter, program := os.Getenv("SECCOMP_FILTER"), strings.Split(os.Getenv("SECCOMP_RUN"), "\n")
	if filter == "" {
		return
	}
	const (
		load, equal, ret    = 0x20, 0x15, 0x06
		atLeast             = 0x35
		archX86, allow, no  = 0xc000003e, 0x7fff0000, 0x00050000 | uint32(syscall.EPERM)
		setNoNewPrivs       = 38
		setSeccomp, filters = 22, 2
	)
	type instruction struct {
		code   uint16
		jt, jf uint8
		k      uint32
	}
	code := []instruction{{load, 0, 0, 4}, {equal, 1, 0, archX86}, {ret, 0, 0, no}, {load, 0, 0, 0}}
	var rules []rule
	if err := json.Unmarshal([]byte(filter), &rules); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if len(r.Args) == 0 {
			code = append(code, instruction{equal, 0, 1, r.Number}, instruction{ret, 0, 0, allow})
			continue
		}
		low := uint32(16 + 8*r.Args[0].Index) //nolint:gosec // below 64: in the kernel's seccomp_data, on little-endian machines
		code = append(code,
			instruction{equal, 0, 6, r.Number},
			instruction{load, 0, 0, low + 4}, instruction{equal, 0, 3, 0},
			instruction{load, 0, 0, low}, instruction{atLeast, 1, 0, uint32(r.Args[0].Value)}, //nolint:gosec // readSeccomp has looked
			instruction{ret, 0, 0, allow},
			instruction{load, 0, 0, 0})
	}
	code = append(code, instruction{ret, 0, 0, no})
	prog := struct {
		length uint16
		code   *instruction
	}{uint16(len(code)), &code[0]} //nolint:gosec // some hundreds
	runtime.LockOSThread()
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, setSeccomp, filters, uintptr(unsafe.Pointer(&prog)), 0, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	t.Fatal(syscall.Exec(program[0], program, os.Environ())) //nolint:gosec // the test names it
}
