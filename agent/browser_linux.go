package agent

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// smallSharedMemory is what a container gets unless asked for more is far below; a browser
// with large pages crashes for want of it.
const smallSharedMemory = 512 << 20

// launcher starts processes from one thread that lives as long as the agent: the kernel takes
// the end of the starting thread, not of the process, for the parent's death.
type launcher struct {
	jobs chan launch
	done chan struct{}
}

type launch struct {
	cmd *exec.Cmd
	err chan error
}

func newLauncher() *launcher {
	adoptOrphans()
	l := &launcher{jobs: make(chan launch), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		runtime.LockOSThread() // never unlocked: the thread ends here
		for j := range l.jobs {
			j.err <- j.cmd.Start()
		}
	}()
	return l
}

func (l *launcher) start(cmd *exec.Cmd) error {
	j := launch{cmd: cmd, err: make(chan error, 1)}
	l.jobs <- j
	return <-j.err
}

// close ends the thread, and with it whatever it started.
func (l *launcher) close() {
	close(l.jobs)
	<-l.done
}

// processAttributes: a group of its own, to be killed as one; and killed when the agent is,
// however it dies.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitExit waits for the end of the child without reaping it: until then its id, and its
// group's, cannot be anybody else's.
func awaitExit(cmd *exec.Cmd) {
	const (
		idIsPID = 1 // P_PID
		noWait  = 0x01000000
	)
	var info [128]byte // siginfo_t, of no interest
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, idIsPID, uintptr(cmd.Process.Pid),
			uintptr(unsafe.Pointer(&info)), syscall.WEXITED|noWait, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}

// adoptOrphans makes the browsers' orphaned children ours, as they are anyway if we are the
// first process of a container: somebody has to reap them.
func adoptOrphans() {
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER
	_, _, _ = syscall.Syscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
}

// reapGroup waits until nothing is left of a killed process group whose leader has been
// reaped. It tells whether that came to pass in time.
func reapGroup(group int, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for pause := 100 * time.Microsecond; ; {
		pid, err := syscall.Wait4(-group, nil, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR) || err == nil && pid > 0:
		case err != nil:
			return true // no child in it
		case time.Now().After(deadline):
			return false
		default:
			time.Sleep(pause) //nolint:forbidigo // only the kernel knows when, and it tells nobody
			pause = min(2*pause, 10*time.Millisecond)
		}
	}
}

// sharedMemoryIsSmall tells whether browsers had better not use /dev/shm.
func sharedMemoryIsSmall() bool {
	var fs syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &fs); err != nil {
		return true
	}
	return fs.Blocks*uint64(fs.Bsize) < smallSharedMemory
}
