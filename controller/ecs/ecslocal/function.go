package ecslocal

import "context"

// function is a Definition's Run at work.
type function struct {
	cancel context.CancelFunc
	killed chan struct{}
	ended  chan struct{}
	code   int  // set before ended is closed
	gone   bool // killed is closed; used by the task's own goroutine only
}

func startFunction(run func(context.Context, TaskEnv) int, env TaskEnv) *function {
	ctx, cancel := context.WithCancel(context.Background())
	f := &function{cancel: cancel, killed: make(chan struct{}), ended: make(chan struct{})}
	env.Killed = f.killed
	go func() { // Close waits for it by way of done
		defer close(f.ended)
		defer cancel()
		f.code = run(ctx, env)
	}()
	return f
}

func (f *function) pid() int              { return 0 }
func (f *function) done() <-chan struct{} { return f.ended }
func (f *function) exitCode() int         { return f.code }
func (f *function) terminate()            { f.cancel() }

func (f *function) kill() {
	f.cancel()
	if !f.gone {
		f.gone = true
		close(f.killed)
	}
}
