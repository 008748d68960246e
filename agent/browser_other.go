//go:build unix && !linux

package agent

import (
	"os/exec"
	"syscall"
	"time"
)

// launcher starts processes. Without a signal at the parent's death, only the agent's orderly
// end leaves nothing behind.
type launcher struct{}

func newLauncher() *launcher                  { return &launcher{} }
func (l *launcher) start(cmd *exec.Cmd) error { return cmd.Start() }
func (l *launcher) close()                    {}

func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// awaitExit waits for the end of the child, which it reaps: there is no portable other way.
func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() }

// reapGroup leaves orphans to the system's first process.
func reapGroup(int, time.Duration) bool { return true }

func sharedMemoryIsSmall() bool { return false }
