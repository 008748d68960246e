//go:build linux

package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Process is a child of this one. Whoever starts it stops it.
type Process struct {
	Stdin  io.WriteCloser // nil unless asked for
	Output *Tail
	Done   chan struct{} // closed when it has ended

	name string
	cmd  *exec.Cmd
}

// Program says what to start.
type Program struct {
	Name, Path string
	Args, Env  []string // Env is all of it
	Dir        string
	Stdout     io.Writer // nil: kept with stderr for errors
	Stdin      bool      // a pipe
}

// Start starts a process in a group of its own.
func (g *Stage) Start(p Program) (*Process, error) {
	c := &Process{name: p.Name, cmd: exec.Command(p.Path, p.Args...), Output: &Tail{}, Done: make(chan struct{})}
	if g.Verbose {
		c.Output.also = os.Stderr
	}
	c.cmd.Env, c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = p.Env, p.Dir, c.Output, c.Output
	if p.Stdout != nil {
		c.cmd.Stdout = p.Stdout
	}
	if p.Stdin {
		var err error
		if c.Stdin, err = c.cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c.cmd.WaitDelay = 5 * time.Second
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.Name, err)
	}
	go func() { // stop waits for it
		defer close(c.Done)
		_ = c.cmd.Wait()
	}()
	return c, nil
}

// Pid is the process's id.
func (c *Process) Pid() int { return c.cmd.Process.Pid }

// Stop asks a process to end, and after ten seconds kills its group.
func (c *Process) Stop(s syscall.Signal) {
	if c.Stdin != nil {
		_ = c.Stdin.Close()
	}
	_ = syscall.Kill(c.Pid(), s)
	select {
	case <-c.Done:
	case <-time.After(15 * time.Second):
	}
	_ = syscall.Kill(-c.Pid(), syscall.SIGKILL) // what it may have left in its group
	<-c.Done
}

// Until asks again and again until the answer is nil, the process has ended or the time is up.
func (c *Process) Until(ctx context.Context, within time.Duration, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-c.Done:
			return fmt.Errorf("waiting until %s: %s has ended: %s", what, c.name, c.Output.Text())
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w: %w: %s printed: %s", what, ctx.Err(), err, c.name, c.Output.Text())
		}
	}
}

// Tail keeps the end of what a process prints.
type Tail struct {
	also io.Writer // nil: nobody
	mu   sync.Mutex
	kept []byte // guarded by mu
}

// Write implements io.Writer.
func (t *Tail) Write(p []byte) (int, error) {
	const most = 4000
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if len(t.kept) > 2*most {
		t.kept = bytes.Clone(t.kept[len(t.kept)-most:])
	}
	if t.also != nil {
		_, _ = t.also.Write(p)
	}
	return len(p), nil
}

// Text is what has been kept.
func (t *Tail) Text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}

// given are the ports that FreePort has found.
var given struct {
	sync.Mutex
	ports map[int]bool
}

// FreePort finds a TCP port of 127.0.0.1 on which nobody listens, each once per process. It is
// below those that the system gives to outgoing connections: one of these might take it before it
// is used, or between a server's end and its next start.
func FreePort() (int, error) {
	const first, last = 12000, 32000
	given.Lock()
	defer given.Unlock()
	for range last - first {
		port := first + rand.IntN(last-first)
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		_ = l.Close()
		if given.ports == nil {
			given.ports = map[int]bool{}
		}
		given.ports[port] = true
		return port, nil
	}
	return 0, errors.New("no TCP port of 127.0.0.1 from 12000 to 32000 is free")
}

// Pause waits, less if ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ErrNotYet says that what is waited for is not there yet.
var ErrNotYet = errors.New("not yet")
