//go:build !linux

package tunnel

import "context"

// parking is Linux's: elsewhere flows keep their goroutines.
type parking struct{}

func newParking() *parking { return &parking{} }

func (p *parking) open() error             { return nil }
func (p *parking) run(ctx context.Context) { <-ctx.Done() }
func (p *parking) watch(*flow) bool        { return false }
func (p *parking) forget(*flow)            {}
