package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// target is where a container may be dialled, and why we think so.
type target struct {
	addr    string // host:port
	taskARN string
	proven  bool // by ECS just now: to be written down
}

// verify finds out where the container listens: from the record if that was verified before,
// else from ECS. It tries until it succeeds, since ECS may not know a new task yet; only the
// end of ctx makes it fail.
func (l *link) verify(ctx context.Context) (target, error) {
	pause := newBackoff()
	said := ""
	for {
		t, err := l.locate(ctx)
		if err == nil {
			return t, nil
		}
		if ctx.Err() != nil {
			return target{}, ctx.Err()
		}
		if why := err.Error(); why != said {
			said = why
			l.log.Warn("container not verified", "error", err)
		}
		pause.wait(ctx, l.poked)
	}
}

// locate is one attempt to find out where the container listens.
func (l *link) locate(ctx context.Context) (target, error) {
	c, ok := l.links.cfg.Mirror.Container(l.id)
	if !ok || c.BootID != l.bootID {
		return target{}, errors.New("its record is gone")
	}
	if c.Phase != state.PendingVerification && c.Addr != "" {
		return target{addr: c.Addr, taskARN: c.TaskARN}, nil
	}
	if c.Launch == "" && c.TaskARN == "" && l.links.cfg.Trusted != nil {
		addr, err := l.links.cfg.Trusted(c)
		if err != nil {
			return target{}, fmt.Errorf("trusting its own word: %w", err)
		}
		return target{addr: addr, proven: true}, nil
	}
	arn, port := c.Claimed.TaskARN, l.links.cfg.Port
	if launch, ok := l.links.cfg.Mirror.Launch(c.Launch); ok {
		port = launch.Port
		if launch.TaskARN != "" {
			arn = launch.TaskARN
		}
	}
	if arn == "" || arn == "local" {
		return target{}, errors.New("no task is known of it yet")
	}
	if port < 1 || port > 65535 {
		return target{}, errors.New("no launch tells its port: configure the port of containers that were not launched here")
	}
	tasks, err := l.links.cfg.Fleet.Describe(ctx, arn)
	if err != nil {
		return target{}, fmt.Errorf("describing task %s: %w", arn, err)
	}
	for i := range tasks {
		if tasks[i].ARN != arn {
			continue
		}
		addr, err := checkTask(&tasks[i], c)
		if err != nil {
			return target{}, err
		}
		return target{addr: net.JoinHostPort(addr.String(), strconv.Itoa(port)), taskARN: arn, proven: true}, nil
	}
	return target{}, fmt.Errorf("task %s is not one of this deployment", arn)
}

// checkTask tells the address of a task, if the container may be that task.
func checkTask(t *state.Task, c *state.Container) (netip.Addr, error) {
	if t.ContainerID != c.ID {
		return netip.Addr{}, fmt.Errorf("task %s runs container %q", t.ARN, t.ContainerID)
	}
	switch t.LastStatus {
	case "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED", "DELETED":
		return netip.Addr{}, fmt.Errorf("task %s is %s", t.ARN, t.LastStatus)
	}
	if t.DesiredStatus == "STOPPED" {
		return netip.Addr{}, fmt.Errorf("task %s is to stop", t.ARN)
	}
	if t.Addr == "" {
		return netip.Addr{}, fmt.Errorf("task %s has no address yet", t.ARN)
	}
	addr, err := netip.ParseAddr(t.Addr)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("reading the address of task %s: %w", t.ARN, err)
	}
	addr = addr.Unmap()
	// What the container said of itself is worth nothing as an address, but a difference
	// means that somebody else may be speaking in its name.
	claimed, err := netip.ParseAddr(c.Claimed.IP)
	switch {
	case c.Claimed.IP == "localhost" && c.Protocol == wire.ProtocolV1:
		// What a v1 container says that could not find out where it is.
	case c.Claimed.IP == "localhost" || err == nil && claimed.IsLoopback() && addr.IsLoopback():
		if !addr.IsLoopback() {
			return netip.Addr{}, fmt.Errorf("it says that it is at %s, ECS says %s", c.Claimed.IP, addr)
		}
	case err != nil || claimed.Unmap() != addr:
		return netip.Addr{}, fmt.Errorf("it says that it is at %q, ECS says %s", c.Claimed.IP, addr)
	}
	return addr, nil
}
