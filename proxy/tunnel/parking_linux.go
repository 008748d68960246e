package tunnel

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// parking watches the sockets of parked flows, all by one goroutine, with an epoll instance
// of its own that itself waits in Go's: so waiting costs no thread, and a parked direction
// costs neither goroutine nor stack.
type parking struct {
	epoll  int
	file   *os.File // of epoll, for Go's poller
	events []syscall.EpollEvent

	mu    sync.Mutex // guards the following
	ready bool       // somebody looks
	flows []*flow    // by the descriptor that they read
}

func newParking() *parking { return &parking{} }

// open makes the place ready. run must follow.
func (p *parking) open() error {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("making a place for idle connections: %w", err)
	}
	_ = syscall.SetNonblock(fd, true) // for NewFile to have Go's poller watch it
	p.epoll, p.file, p.events = fd, os.NewFile(uintptr(fd), "parking"), make([]syscall.EpollEvent, 128)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = true
	return nil
}

// run wakes flows that have something to read, until ctx ends; then it wakes all of them.
func (p *parking) run(ctx context.Context) {
	defer p.close()
	raw, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// One call for ever: what becomes ready between a look and the wait is not forgotten then.
	_ = raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.EpollWait(int(fd), p.events, 0)
			for _, e := range p.events[:max(n, 0)] {
				p.wake(int(e.Fd))
			}
			if n < len(p.events) && err != syscall.EINTR {
				return false
			}
		}
	})
}

func (p *parking) wake(fd int) {
	p.mu.Lock()
	f := p.flows[fd]
	p.mu.Unlock()
	if f != nil {
		f.tunnel.wake(f)
	}
}

func (p *parking) close() {
	p.mu.Lock()
	p.ready = false
	flows := p.flows
	p.flows = nil
	_ = p.file.Close()
	p.mu.Unlock()
	for _, f := range flows {
		if f != nil {
			f.tunnel.wake(f)
		}
	}
}

// watch has f woken once when there is something to read. f's tunnel is locked.
func (p *parking) watch(f *flow) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready {
		return false
	}
	ok := false
	_ = f.source.raw.Control(func(fd uintptr) {
		op := syscall.EPOLL_CTL_MOD
		if !f.armed {
			op = syscall.EPOLL_CTL_ADD
			for int(fd) >= len(p.flows) {
				p.flows = append(p.flows, make([]*flow, 1024)...)
			}
		}
		const oneShot = 1 << 30
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | oneShot, Fd: int32(fd)}
		ok = syscall.EpollCtl(p.epoll, op, int(fd), &event) == nil
		if ok {
			p.flows[fd] = f
		}
	})
	f.armed = f.armed || ok
	return ok
}

// forget takes f out, before its socket is closed. f's tunnel is locked.
func (p *parking) forget(f *flow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = f.source.raw.Control(func(fd uintptr) {
		if int(fd) < len(p.flows) && p.flows[fd] == f {
			p.flows[fd] = nil
		}
	})
}
