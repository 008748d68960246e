package tunnel

import (
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// spliceMin is the least remainder of a frame that is moved inside the kernel: below it the
	// pipe costs more than the copies that it saves.
	spliceMin = 256 << 10
	// pipeSize is how much of one tunnel a pipe holds at most.
	pipeSize = 1 << 20
	// maxPipes is how many empty pipes are kept for the next large frame.
	maxPipes = 16

	spliceFlags = 1 | 2 // SPLICE_F_MOVE, SPLICE_F_NONBLOCK

	// heldUp is for how long bytes of a large frame wait for more to come, so that a flow is woken
	// less often: few can do anything with them before its end. If its sender pauses, or is slower
	// all at once, they wait for longer, until the flow is parked at most.
	heldUp = time.Millisecond
	// What is waited for is no less than what is worth it, and no more than a quarter of what
	// the kernel takes from a container where it is allowed to (net.core.rmem_max; it bounds this).
	minLowWater, maxLowWater = 64 << 10, 512 << 10
)

// pipe is two file descriptors that hold bytes on their way through the kernel. It is held
// only while there are any.
type pipe struct{ r, w int }

func (p pipe) close() {
	_ = syscall.Close(p.r)
	_ = syscall.Close(p.w)
}

// pipes are empty ones, shared by all tunnels of the process.
var pipes struct {
	mu   sync.Mutex
	free []pipe
}

func takePipe() (pipe, error) {
	pipes.mu.Lock()
	if n := len(pipes.free); n > 0 {
		p := pipes.free[n-1]
		pipes.free = pipes.free[:n-1]
		pipes.mu.Unlock()
		return p, nil
	}
	pipes.mu.Unlock()
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return pipe{}, err
	}
	const setPipeSize = 1031
	_, _, _ = syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fds[1]), setPipeSize, pipeSize) // a smaller one will do
	return pipe{fds[0], fds[1]}, nil
}

func givePipe(p pipe) {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	if len(pipes.free) < maxPipes {
		pipes.free = append(pipes.free, p)
		return
	}
	p.close()
}

// splicer moves bytes from one socket to another without them ever coming here. Its fields
// are owned by the flow's goroutine.
type splicer struct {
	pipe  pipe
	held  bool // pipe is ours
	want  uint64
	n     int
	errno syscall.Errno
	pace  pace
	low   uint64 // see lowWater

	tryIn, tryOut func(fd uintptr) bool // made once
}

// splice moves the rest of a large frame. moved is false if that was not possible at all, and
// nothing was lost; exactly one of the errors may be set otherwise.
func (f *flow) splice() (moved bool, readErr, writeErr error) {
	if f.source.raw == nil || f.sink.raw == nil {
		return false, nil, nil
	}
	if f.splicer == nil {
		f.splicer = &splicer{low: 1}
		f.splicer.tryIn = f.splicer.in
		f.splicer.tryOut = f.trySpliceOut
	}
	s := f.splicer
	s.pace = pace{}
	defer f.lowWater(1)
	for f.frames.left > 0 {
		if f.tunnel.cfg.Keeper != nil { // it parks a flow whose sender has paused, and so ends the wait
			f.lowWater(s.pace.lowWater(f.frames.left, time.Now()))
		}
		s.want, s.n, s.errno = f.frames.left, 0, 0
		err := f.source.raw.Read(s.tryIn)
		switch {
		case s.n > 0:
		case err != nil:
			return true, err, nil
		case s.errno == syscall.EINVAL, s.errno == syscall.EMFILE, s.errno == syscall.ENFILE:
			return false, nil, nil
		case s.errno != 0:
			return true, &net.OpError{Op: "splice", Net: "tcp", Source: f.src.LocalAddr(), Addr: f.src.RemoteAddr(), Err: s.errno}, nil
		default:
			return true, io.EOF, nil
		}
		taken := s.n
		s.pace.count(taken, time.Now())
		err = f.sink.raw.Write(s.tryOut)
		if f.sink.blocked.Load() {
			f.sink.blocked.Store(false)
		}
		f.passed(taken - s.n)
		if s.n > 0 { // the pipe holds what cannot be delivered
			s.pipe.close()
			s.held = false
			if err == nil {
				err = &net.OpError{Op: "splice", Net: "tcp", Source: f.dst.LocalAddr(), Addr: f.dst.RemoteAddr(), Err: s.errno}
			}
			return true, nil, err
		}
		givePipe(s.pipe)
		s.held = false
	}
	return true, nil, nil
}

// lowWater has the flow woken only once n bytes have come, or the end of the stream. There must
// be as many to come.
func (f *flow) lowWater(n uint64) {
	if s := f.splicer; s.low != n {
		s.low = n
		_ = f.source.raw.Control(func(fd uintptr) { setOption(fd, syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, int(n)) })
	}
}

// pace is how fast a frame moves, from the first wait on: what had come before says nothing.
type pace struct {
	waited bool
	since  time.Time // the first bytes after that came; zero: none have
	moved  uint64    // after those
}

// count takes note of n bytes that have come.
func (p *pace) count(n int, now time.Time) {
	switch {
	case !p.waited:
	case p.since.IsZero():
		p.since = now
	default:
		p.moved += uint64(n)
	}
}

// lowWater is how much of what is left of the frame comes while some may be held up, coarsely,
// so that it seldom changes; one if that is not worth waiting for.
func (p *pace) lowWater(left uint64, now time.Time) uint64 {
	if p.moved == 0 {
		return 1
	}
	n := float64(p.moved) * float64(heldUp) / float64(max(now.Sub(p.since), 1))
	low := uint64(maxLowWater)
	for float64(low) > n && low >= minLowWater {
		low /= 2
	}
	if low = min(low, left); low < minLowWater {
		return 1
	}
	return low
}

// in takes what is there into a pipe. It tells false, holding none, if the poller must wait.
func (s *splicer) in(fd uintptr) bool {
	if !s.held {
		p, err := takePipe()
		if err != nil {
			s.errno = syscall.EMFILE
			return true
		}
		s.pipe, s.held = p, true
	}
	for {
		n, errno := spliceFDs(int(fd), s.pipe.w, min(s.want, pipeSize))
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			givePipe(s.pipe)
			s.held = false
			s.pace.waited = true
			return false
		case n == 0:
			givePipe(s.pipe)
			s.held = false
		}
		s.n, s.errno = n, errno
		return true
	}
}

// trySpliceOut empties the pipe. It tells false if the poller must wait.
func (f *flow) trySpliceOut(fd uintptr) bool {
	s := f.splicer
	for s.n > 0 {
		n, errno := spliceFDs(s.pipe.r, int(fd), uint64(s.n))
		switch {
		case n > 0:
			s.n -= n
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			f.sink.blocked.Store(true)
			return false
		default:
			s.errno = errno
			return true
		}
	}
	return true
}

func spliceFDs(from, to int, n uint64) (int, syscall.Errno) {
	moved, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), spliceFlags)
	if errno != 0 {
		return 0, errno
	}
	return int(moved), 0
}
