package controller

import (
	"math/rand/v2"
	"sync"
	"time"
)

// machine is what a controller runs on: the process it is in, or a Stepper's driver.
type machine struct {
	now     func() time.Time    // monotonic
	random  func(n int64) int64 // in [0, n)
	callers int                 // calls to ECS at once
	// beside runs something beside the loop; wg ends after it.
	beside func(wg *sync.WaitGroup, do func())
	// write runs one of several calls, mostly writes to the store, that need not wait for one another.
	write func(wg *sync.WaitGroup, do func())
}

// process is the machine of everything but simulations.
var process = machine{
	now:     time.Now,
	random:  rand.Int64N,
	callers: 10,
	beside:  (*sync.WaitGroup).Go,
	write:   (*sync.WaitGroup).Go,
}

func (c *Controller) now() time.Time { return c.cfg.machine.now() }
