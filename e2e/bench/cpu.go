//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// adoptOrphans makes this process the parent of what its descendants leave behind, so that
// the processor time of killed browsers' helpers is not lost to init.
func adoptOrphans() error {
	const setChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("becoming the reaper of orphans: %w", errno)
	}
	return nil
}

// stat is what /proc says of one process.
type stat struct {
	name          string // of the executable, cut to 15 bytes
	pid, parent   int
	zombie        bool
	own, children time.Duration // user and system time; of children only those waited for
}

// tick is the unit of times in /proc: USER_HZ is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// processes reads all of them.
func processes() map[int]stat {
	all := map[int]stat{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return all
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // gone meanwhile
		}
		_, rest, ok := strings.Cut(string(text[max(0, bytes.LastIndexByte(text, ')')):]), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 15 {
			continue
		}
		number := func(i int) time.Duration { n, _ := strconv.ParseInt(f[i], 10, 64); return time.Duration(n) * tick }
		parent, _ := strconv.Atoi(f[1])
		name := string(text[bytes.IndexByte(text, '(')+1 : bytes.LastIndexByte(text, ')')])
		all[pid] = stat{name, pid, parent, f[0] == "Z", number(11) + number(12), number(13) + number(14)}
	}
	return all
}

// tree lists a process and its descendants.
func tree(all map[int]stat, root int) []stat {
	var found []stat
	for pid, s := range all {
		for at := pid; at > 1; at = all[at].parent {
			if at == root {
				found = append(found, s)
				break
			}
		}
	}
	return found
}

// treeCPU is the processor time of a process, of its descendants, and of those of them that
// have ended. It only grows while the root lives.
func treeCPU(root int) time.Duration {
	var sum time.Duration
	for _, s := range tree(processes(), root) {
		sum += s.own + s.children
	}
	return sum
}

// programCPU is the processor time of those processes in the tree that run the root's program,
// without their children's.
func programCPU(root int) time.Duration {
	all := processes()
	var sum time.Duration
	for _, s := range tree(all, root) {
		if s.name == all[root].name {
			sum += s.own
		}
	}
	return sum
}

// descendantsCPU is treeCPU without the root's own.
func descendantsCPU(root int) time.Duration {
	all := processes()
	sum := -all[root].own
	for _, s := range tree(all, root) {
		sum += s.own + s.children
	}
	return sum
}

// orphansCPU is the processor time of what became this process's child without having been
// started by it. reap takes the dead among them away.
func orphansCPU(known ...int) time.Duration {
	var sum time.Duration
	for _, s := range orphans(known) {
		sum += s.own + s.children
	}
	return sum
}

func reap(known ...int) {
	for _, s := range orphans(known) {
		if s.zombie {
			_, _ = syscall.Wait4(s.pid, nil, syscall.WNOHANG, nil)
		}
	}
}

func orphans(known []int) []stat {
	var found []stat
next:
	for _, s := range processes() {
		if s.parent != os.Getpid() {
			continue
		}
		for _, pid := range known {
			if s.pid == pid {
				continue next
			}
		}
		found = append(found, s)
	}
	return found
}

// browserArgs are the flags of a browser in the tree: what the agent starts, so that what it
// is compared with is started alike.
func browserArgs(root int) ([]string, error) {
	for _, s := range tree(processes(), root) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.pid))
		if err != nil || !bytes.Contains(text, []byte("--remote-debugging-port=0")) || bytes.Contains(text, []byte("--type=")) {
			continue
		}
		// Chromium has written its arguments anew, with spaces between them.
		var args []string
		for _, a := range strings.Fields(strings.ReplaceAll(string(text), "\x00", " "))[1:] {
			if !strings.HasPrefix(a, "--user-data-dir=") {
				args = append(args, a)
			}
		}
		return args, nil
	}
	return nil, stage.ErrNotYet
}

// pinProcess puts all threads of a process on the first core, and those that they will make.
func pinProcess(pid int) error {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	mask := uint64(1)
	for _, e := range entries {
		thread, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(thread), unsafe.Sizeof(mask),
			uintptr(unsafe.Pointer(&mask))); errno != 0 {
			return fmt.Errorf("pinning a thread: %w", errno)
		}
	}
	return nil
}
