package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// AcquireLease takes or renews the leadership for replica.
func (s *Store) AcquireLease(ctx context.Context, replica string, had int64) (int64, time.Duration, error) {
	reply, err := s.eval(ctx, "lease_acquire", []string{s.keys.leader, s.keys.epoch},
		replica, state.LeaseTTL.Milliseconds(), had)
	if err != nil {
		return 0, 0, fmt.Errorf("acquiring the lease: %w", err)
	}
	return integer(reply[0]), state.LeaseTTL, nil
}

// ReleaseLease gives the leadership up if replica holds it under epoch.
func (s *Store) ReleaseLease(ctx context.Context, replica string, epoch int64) error {
	if _, err := s.eval(ctx, "lease_release", []string{s.keys.leader, s.keys.wake}, replica, epoch); err != nil {
		return fmt.Errorf("releasing the lease: %w", err)
	}
	return nil
}
