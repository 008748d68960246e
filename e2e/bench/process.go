//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a child of the bench. Whoever starts it stops it.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser // nil unless asked for
	output *tail
	done   chan struct{} // closed when it has ended
}

// program says what to start.
type program struct {
	name, path string
	args, env  []string // env is all of it
	dir        string
	stdout     io.Writer // nil: kept with stderr for errors
	stdin      bool      // a pipe
}

// start starts a process in a group of its own.
func (b *bench) start(p program) (*process, error) {
	c := &process{name: p.name, cmd: exec.Command(p.path, p.args...), output: &tail{}, done: make(chan struct{})}
	if b.verbose {
		c.output.also = os.Stderr
	}
	c.cmd.Env, c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = p.env, p.dir, c.output, c.output
	if p.stdout != nil {
		c.cmd.Stdout = p.stdout
	}
	if p.stdin {
		var err error
		if c.stdin, err = c.cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c.cmd.WaitDelay = 5 * time.Second
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	go func() { // stop waits for it
		defer close(c.done)
		_ = c.cmd.Wait()
	}()
	return c, nil
}

func (c *process) pid() int { return c.cmd.Process.Pid }

// stop asks a process to end, and after ten seconds kills its group.
func (c *process) stop(s syscall.Signal) {
	if c.stdin != nil {
		_ = c.stdin.Close()
	}
	_ = syscall.Kill(c.pid(), s)
	select {
	case <-c.done:
	case <-time.After(15 * time.Second):
	}
	_ = syscall.Kill(-c.pid(), syscall.SIGKILL) // what it may have left in its group
	<-c.done
}

// until asks again and again until the answer is nil, the process has ended or the time is up.
func (c *process) until(ctx context.Context, within time.Duration, what string, check func() error) error {
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
		case <-c.done:
			return fmt.Errorf("waiting until %s: %s has ended: %s", what, c.name, c.output.text())
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w: %w: %s printed: %s", what, ctx.Err(), err, c.name, c.output.text())
		}
	}
}

// tail keeps the end of what a process prints.
type tail struct {
	also io.Writer // nil: nobody
	mu   sync.Mutex
	kept []byte // guarded by mu
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
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

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}

// freePort finds a TCP port of 127.0.0.1 on which nobody listens.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// pause waits, less if ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errNotYet = errors.New("not yet")
