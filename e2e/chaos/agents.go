//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// agentOf picks a container that clients have their browsers in, and its process.
func (r *round) agentOf(ctx context.Context) (id string, pid int, err error) {
	count := map[string]int{}
	for i, s := range r.crowd.snapshot().clients {
		if s.lost == nil {
			count[r.crowd.clients[i].container]++
		}
	}
	running, _, err := r.tasks(ctx)
	if err != nil {
		return "", 0, err
	}
	for _, t := range running {
		if count[t.launch()] > 0 {
			if pid, ok := r.cloud.Pid(t.ARN); ok {
				return t.launch(), pid, nil
			}
		}
	}
	return "", 0, errors.New("no container has clients' browsers")
}

// excuse expects the clients of a container to lose their sessions.
func (r *round) excuse(container string) {
	for _, c := range r.crowd.clients {
		if c.container == container {
			c.mu.Lock()
			c.excused = true
			c.mu.Unlock()
		}
	}
}

// awaitTold waits until every client of a container knows that its session has ended.
func (r *round) awaitTold(ctx context.Context, container string, within time.Duration) error {
	return r.until(ctx, within, "the clients of the container are told", func() error {
		for i, s := range r.crowd.snapshot().clients {
			if c := r.crowd.clients[i]; c.container == container && s.lost == nil {
				return fmt.Errorf("session %s has not ended", c.session)
			}
		}
		return nil
	})
}

// awaitOver waits until ECS says that a container's task is over.
func (r *round) awaitOver(ctx context.Context, container string) error {
	return r.until(ctx, quietWithin, "ECS says that it is over", func() error {
		running, _, err := r.tasks(ctx)
		for _, t := range running {
			if t.launch() == container {
				err = stage.ErrNotYet
			}
		}
		return err
	})
}

// killAgent costs the sessions in that container, and no others.
func killAgent(ctx context.Context, r *round) error {
	id, pid, err := r.agentOf(ctx)
	if err != nil {
		return err
	}
	r.excuse(id)
	since := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	err = r.awaitTold(ctx, id, quietWithin)
	r.row.promise, r.row.took = "its clients are told after", append(r.row.took, time.Since(since))
	if err != nil {
		return err
	}
	return r.awaitOver(ctx, id)
}

// freezeAgentForGood stops an agent that never goes on: its sessions are lost, and its task is
// stopped once that is known.
func freezeAgentForGood(ctx context.Context, r *round) error {
	id, pid, err := r.agentOf(ctx)
	if err != nil {
		return err
	}
	r.excuse(id)
	since := time.Now()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	err = r.awaitTold(ctx, id, hungAfter+quietWithin)
	if took := time.Since(since); err == nil && took < hungAfter-5*time.Second {
		err = fmt.Errorf("it was given up after %s, not %s", took, hungAfter)
	}
	r.row.promise = fmt.Sprintf("its clients are told (HUNG_AFTER %s) after", hungAfter)
	r.row.took = append(r.row.took, time.Since(since))
	if err != nil {
		return err
	}
	return r.awaitOver(ctx, id)
}

func freezeAgent(ctx context.Context, r *round) error {
	_, pid, err := r.agentOf(ctx)
	if err != nil {
		return err
	}
	since := time.Now()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	err = r.until(ctx, decideWithin, "its silence is noticed", func() error {
		if r.silent(ctx) == 0 {
			return stage.ErrNotYet
		}
		return nil
	})
	r.row.promise, r.row.took = "noticed after", append(r.row.took, time.Since(since))
	if err == nil {
		err = stage.Pause(ctx, max(0, 25*time.Second-time.Since(since)))
	}
	return errors.Join(err, syscall.Kill(pid, syscall.SIGCONT))
}
