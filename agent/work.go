package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	workPrefix = "agent-"
	lockName   = "lock"
)

func defaultWorkDir() string { return filepath.Join(os.TempDir(), "wallcrawler-agent") }

// work is the directory of one agent. A lock on a file in it lives as long as the agent, so
// that a later one can tell what a dead one has left behind.
type work struct {
	dir    string
	lock   *os.File
	parent string // to be removed when it is empty; may be ""
}

// openWork makes a directory below parent, and removes those of agents that are dead. The
// last one out removes parent too, if it is the default one or was not there before.
func openWork(parent string) (*work, error) {
	for tries := 0; ; tries++ {
		w, err := tryOpenWork(parent)
		// An agent that ends may remove parent under our feet.
		if err == nil || !errors.Is(err, fs.ErrNotExist) || tries == 10 {
			return w, err
		}
	}
}

func tryOpenWork(parent string) (*work, error) {
	if err := os.MkdirAll(filepath.Dir(parent), 0o755); err != nil {
		return nil, fmt.Errorf("making the working directory: %w", err)
	}
	err := os.Mkdir(parent, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making the working directory: %w", err)
	}
	ours := err == nil || parent == defaultWorkDir()
	// Held while directories come and go: one that is being made is not locked yet.
	gate, err := lock(parent, os.O_RDONLY, syscall.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("locking the working directory: %w", err)
	}
	defer func() { _ = gate.Close() }()
	sweep(parent)
	dir, err := os.MkdirTemp(parent, workPrefix)
	if err != nil {
		return nil, fmt.Errorf("making the agent's directory: %w", err)
	}
	held, err := lock(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking the agent's directory: %w", err), os.RemoveAll(dir))
	}
	w := &work{dir: dir, lock: held}
	if ours {
		w.parent = parent
	}
	return w, nil
}

// lock opens and locks a file, or a directory, until it is closed.
func lock(path string, flags, how int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes what nobody holds. What cannot be removed now is left to the next agent.
func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), workPrefix) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		held, err := lock(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, syscall.LOCK_EX|syscall.LOCK_NB)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(dir)
		_ = held.Close()
	}
}

// newDir makes a directory for one browser.
func (w *work) newDir() (string, error) {
	dir, err := os.MkdirTemp(w.dir, "browser-")
	if err != nil {
		return "", fmt.Errorf("making a browser's directory: %w", err)
	}
	return dir, nil
}

// close removes the directory and whatever is left in it.
func (w *work) close() error {
	err := removeAll(w.dir)
	_ = w.lock.Close()
	if w.parent != "" {
		_ = os.Remove(w.parent) // not empty while another agent is there
	}
	return err
}

// removeAll removes dir even while dying processes may still write into it.
func removeAll(dir string) error {
	deadline := time.Now().Add(removeTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := os.RemoveAll(dir)
		if err == nil {
			if _, err = os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("removing %s: %w", dir, err)
		}
		time.Sleep(pause) //nolint:forbidigo // until a dying browser has written its last
	}
}
