package state

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// ErrDialect says that the pool takes only containers that speak another version of the link.
var ErrDialect = errors.New("the pool speaks another version of the link")

// Dialect says which containers a pool takes: those of one version of the link, since their
// clients cannot be mixed. Empty: all.
type Dialect string

// The dialects.
const (
	DialectAuto Dialect = "auto" // the version of the first container, until the pool is empty
	DialectV1   Dialect = "v1"
	DialectV2   Dialect = "v2"
)

// ParseDialect reads a configured dialect.
func ParseDialect(text string) (Dialect, error) {
	switch d := Dialect(text); d {
	case DialectAuto, DialectV1, DialectV2:
		return d, nil
	}
	return "", fmt.Errorf("%w: %q is no protocol of a pool: use auto, v1 or v2", ErrInvalid, text)
}

// Fixed is the version that is configured as the only one; zero for auto and for all.
func (d Dialect) Fixed() int {
	switch d {
	case DialectV1:
		return 1
	case DialectV2:
		return 2
	case DialectAuto:
	}
	return 0
}

// Known tells whether d is one of the dialects, or empty.
func (d Dialect) Known() bool { return d == "" || d == DialectAuto || d.Fixed() != 0 }

// PoolDialect is what is noted of a pool's dialect.
type PoolDialect struct {
	Protocol  int       // in force; zero: none, the next container decides
	Refused   int       // registrations refused in a row because they spoke another
	RefusedAt time.Time // the last of them, by the store's clock
}

// HoldsLaunches tells whether launching is of no use: what is started speaks a version that
// the pool refuses. It is tried again after a while.
func (d PoolDialect) HoldsLaunches(now time.Time) bool {
	return d.Refused >= dialectPatience && now.Sub(d.RefusedAt) < dialectHold
}

// Why tells a person what is wrong when HoldsLaunches.
func (d PoolDialect) Why() string {
	speaks := "another version of the link than POOL_PROTOCOL allows"
	if d.Protocol != 0 {
		speaks = "another version of the link than the pool's, which is " + strconv.Itoa(d.Protocol)
	}
	return fmt.Sprintf("the last %d containers speak %s", d.Refused, speaks)
}

const (
	dialectPatience = 2
	dialectHold     = 5 * time.Minute
)

// Dialects keeps the dialect of the pool. Register settles it.
type Dialects interface {
	// PoolDialect reads it.
	PoolDialect(ctx context.Context) (PoolDialect, error)
	// ForgetDialect takes it out of force because the pool is empty (leader). ErrConflict if
	// there is a container that is not gone.
	ForgetDialect(ctx context.Context, by Authority) error
}

// otherDialect is ErrDialect with the versions.
func otherDialect(want, got int) error {
	return fmt.Errorf("%w: %d, not %d", ErrDialect, want, got)
}
