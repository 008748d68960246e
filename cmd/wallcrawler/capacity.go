package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// What one client can cost: two open files; and memory when it stalls, rounded up.
const (
	clientFiles  = 2
	clientMemory = 100 << 10
	// baseMemory is what a replica needs without clients.
	baseMemory = 64 << 20
	// keptFiles are for the store, the containers' links, metrics and health checks.
	keptFiles = 200
	// maxDrain is how long a stop may take: ECS on Fargate kills after 120 s.
	maxDrain = 110 * time.Second
)

// capacity is how many clients a replica takes.
type capacity struct {
	clients int // at once
	files   int // that all connections together may take; the rest is for the store, links and the like
}

// capacityOf derives the number of clients from the limits of open files and memory. asked, if
// not zero, may lower it.
func capacityOf(asked, files int, memory int64) (capacity, error) {
	kept := min(keptFiles, files/4)
	c := capacity{clients: (files - kept) / clientFiles, files: files - kept/2}
	if memory != math.MaxInt64 {
		c.clients = min(c.clients, int(max(memory-baseMemory, memory/4)/clientMemory))
	}
	if asked > c.clients {
		return c, fmt.Errorf("MAX_CLIENTS is %d: the limits of open files (%d) and memory (GOMEMLIMIT) leave room for %d", asked, files, c.clients)
	}
	if asked > 0 {
		c.clients = asked
	}
	return c, nil
}

// limits reads the process's limits of open files and of memory.
func limits() (files int, memory int64) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32, debug.SetMemoryLimit(-1)
	}
	return int(limit.Cur), debug.SetMemoryLimit(-1)
}

// listen opens a listener whose connections are tuned by inheritance, and not by Go's own
// settings for each.
func listen(ctx context.Context, address string, keep tunnel.KeeperConfig) (net.Listener, error) {
	cfg := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		tunnel.TuneListener(raw, keep.Stall)
		return nil
	}}
	// Go's listeners speak Multipath TCP where the kernel does. Connections accepted from those
	// cost more and inherit none of the settings; no load balancer has a use for it.
	cfg.SetMultipathTCP(false)
	l, err := cfg.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return l, nil
}

// relayLimits checks the settings about clients.
func (o *options) relayLimits(c *config) error {
	files, memory := limits()
	var err error
	if o.capacity, err = capacityOf(c.GetInt("max_clients"), files, memory); err != nil {
		return err
	}
	o.clientsPerUser = c.GetInt("max_clients_per_user")
	o.keep = tunnel.KeeperConfig{Ping: c.GetDuration("client_ping"), Stall: c.GetDuration("stalled_client")}
	switch {
	case c.GetInt("max_clients") < 0 || o.clientsPerUser < 0:
		return fmt.Errorf("MAX_CLIENTS is %d and MAX_CLIENTS_PER_USER %d: they must not be negative", c.GetInt("max_clients"), o.clientsPerUser)
	case o.keep.Ping < time.Second || o.keep.Ping > 25*time.Second:
		return fmt.Errorf("CLIENT_PING is %v: it must be 1 s to 25 s, since load balancers cut connections that are silent for long", o.keep.Ping)
	case o.keep.Stall < time.Second || o.keep.Stall > 10*time.Minute:
		return fmt.Errorf("STALLED_CLIENT_TIMEOUT is %v: it must be 1 s to 10 m", o.keep.Stall)
	case o.unreadyFor+o.drainTimeout > maxDrain:
		return fmt.Errorf("DRAIN_UNREADY and DRAIN_TIMEOUT are %v together: they must not exceed %v, since ECS kills a task 120 s after it was told to stop", o.unreadyFor+o.drainTimeout, maxDrain)
	}
	return nil
}
