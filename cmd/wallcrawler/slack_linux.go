package main

import (
	"os"
	"runtime"
	"syscall"
)

const (
	// timerSlack is how much later than asked the kernel may wake a thread, in ns. Go's runtime has a
	// thread that looks at the others every 20 µs as long as they make system calls. Where there is one
	// core it takes that from them each time, a tenth of what it does (docs/performance.md). Other timers
	// can be late by as much.
	timerSlack = 1_000_000

	prSetTimerSlack = 29
	prGetTimerSlack = 30

	// slackVariable tells the program that it has tried to relax.
	slackVariable = "WALLCRAWLER_RELAXED"
)

// relax lets the kernel put off this process's timers a little, if it has one core: where it has more, Go
// waits for some µs before one core takes work from another, which must not become a ms. Threads inherit
// the slack from the one that makes them, and the one which it is for is there before the program: so
// that is made anew, in the same process. If that cannot be done, nothing has changed but the costs.
func relax() {
	if os.Getenv(slackVariable) != "" {
		_ = os.Unsetenv(slackVariable)
		return
	}
	self, err := os.Executable()
	if runtime.GOMAXPROCS(0) > 1 || err != nil {
		return
	}
	runtime.LockOSThread() // the one that the program's image is replaced from
	defer runtime.UnlockOSThread()
	if now, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prGetTimerSlack, 0, 0); errno != 0 || now >= timerSlack {
		return
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, timerSlack, 0); errno != 0 {
		return
	}
	_ = syscall.Exec(self, os.Args, append(os.Environ(), slackVariable+"=1"))
}
