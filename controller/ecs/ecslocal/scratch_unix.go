//go:build unix

package ecslocal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	scratchPattern = "ecslocal-*"
	// scratchAge spares directories that are being made just now and not yet locked.
	scratchAge = time.Minute
)

// scratch is the directory under which an endpoint's tasks have theirs. Its lock is held as
// long as the endpoint lives, and no longer, however it dies: the next endpoint removes what a
// killed one has left.
type scratch struct {
	dir  string
	lock *os.File
}

func newScratch() (*scratch, error) {
	sweepScratch()
	dir, err := os.MkdirTemp("", scratchPattern)
	if err != nil {
		return nil, fmt.Errorf("making a directory for the tasks' files: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking the directory for the tasks' files: %w", err), os.Remove(dir))
	}
	return &scratch{dir: dir, lock: lock}, nil
}

// remove removes the directory with all that is in it. Repeated, it does nothing.
func (s *scratch) remove() error {
	err := os.RemoveAll(s.dir)
	if closing := s.lock.Close(); !errors.Is(closing, os.ErrClosed) { // removed before
		err = errors.Join(err, closing)
	}
	return err
}

// lockDir locks the directory for this process, or says that another has it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweepScratch removes the directories of endpoints that are gone. What cannot be removed is
// another user's or the next one's to remove.
func sweepScratch() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), scratchPattern))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < scratchAge {
			continue
		}
		if lock, err := lockDir(dir); err == nil {
			_ = os.RemoveAll(dir)
			_ = lock.Close()
		}
	}
}
