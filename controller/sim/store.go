package sim

import (
	"context"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// storeView is the store as one replica reaches it. What is not overridden here is read
// undisturbed.
type storeView struct {
	*state.Memory
	r *replica
}

// asked is a call with a result, shown to the checker if it went well.
func asked[T any](ctx context.Context, v *storeView, at Step, by state.Authority, do func() (T, error), seen func(T)) (T, error) {
	var got T
	if by.Epoch != 0 {
		v.r.acts()
	}
	err := v.r.call(ctx, at, func() error {
		var err error
		if got, err = do(); err == nil {
			v.r.w.check.wrote(v.r, at, by)
			if seen != nil {
				seen(got)
			}
		}
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return got, nil
}

func read[T any](ctx context.Context, v *storeView, at Step, do func() (T, error)) (T, error) {
	var got T
	err := v.r.call(ctx, at, func() (err error) { got, err = do(); return err })
	return got, err
}

func (v *storeView) session(s *state.Session)     { v.r.w.check.session(v.r, s) }
func (v *storeView) container(c *state.Container) { v.r.w.check.container(v.r, c) }

func (v *storeView) AcquireLease(ctx context.Context, replica string, had int64) (epoch int64, ttl time.Duration, err error) {
	err = v.r.call(ctx, stepLease, func() error {
		epoch, ttl, err = v.Memory.AcquireLease(ctx, replica, had)
		if err == nil {
			v.r.w.check.granted(v.r, epoch)
		}
		return err
	})
	return epoch, ttl, err
}

func (v *storeView) ReleaseLease(ctx context.Context, replica string, epoch int64) error {
	return v.r.call(ctx, stepLease, func() error {
		if !v.r.leaving {
			v.r.w.tally.mark("a leader that could not read gave the lead up")
		}
		return v.Memory.ReleaseLease(ctx, replica, epoch)
	})
}

func (v *storeView) Index(ctx context.Context) (state.Index, error) {
	ix, err := read(ctx, v, stepIndex, func() (state.Index, error) { return v.Memory.Index(ctx) })
	v.r.seen = max(v.r.seen, ix.Seq)
	return ix, err
}

func (v *storeView) SessionsOf(ctx context.Context, ids []string) ([]*state.Session, error) {
	return read(ctx, v, stepRecords, func() ([]*state.Session, error) { return v.Memory.SessionsOf(ctx, ids) })
}

func (v *storeView) ContainersOf(ctx context.Context, ids []string) ([]*state.Container, error) {
	return read(ctx, v, stepRecords, func() ([]*state.Container, error) { return v.Memory.ContainersOf(ctx, ids) })
}

func (v *storeView) LaunchesOf(ctx context.Context, ids []string) ([]*state.Launch, error) {
	return read(ctx, v, stepRecords, func() ([]*state.Launch, error) { return v.Memory.LaunchesOf(ctx, ids) })
}

func (v *storeView) DocumentsOf(ctx context.Context, ids []string) ([]state.Document, error) {
	began := v.r.w.now
	return read(ctx, v, stepDocuments, func() ([]state.Document, error) {
		docs, err := v.Memory.DocumentsOf(ctx, ids)
		for i := range docs {
			v.r.w.check.documentRead(v.r, &docs[i], began)
		}
		return docs, err
	})
}

func (v *storeView) DocumentIDs(ctx context.Context) ([]string, error) {
	return read(ctx, v, stepDocumentList, func() ([]string, error) { return v.Memory.DocumentIDs(ctx) })
}

func (v *storeView) PoolNotes(ctx context.Context) (state.PoolNotes, error) {
	return read(ctx, v, stepTakeOver, func() (state.PoolNotes, error) {
		notes, err := v.Memory.PoolNotes(ctx)
		v.r.w.check.takenOver(v.r, notes)
		return notes, err
	})
}

func (v *storeView) PoolDesired(ctx context.Context) ([]byte, error) {
	return read(ctx, v, stepDesired, func() ([]byte, error) { return v.Memory.PoolDesired(ctx) })
}

func (v *storeView) NotePool(ctx context.Context, by state.Authority, u state.PoolUpdate) error {
	return v.r.call(ctx, stepNotes, func() error { return v.Memory.NotePool(ctx, by, u) })
}

func (v *storeView) CreateDocument(ctx context.Context, id string, text []byte, ttl time.Duration) error {
	v.r.acts()
	return v.r.call(ctx, stepRestore, func() error {
		err := v.Memory.CreateDocument(ctx, id, text, ttl)
		if err == nil {
			v.r.w.check.restored(id)
		}
		return err
	})
}

func (v *storeView) EditDocument(ctx context.Context, id string, ttl time.Duration, edit func([]byte) ([]byte, error)) error {
	v.r.acts()
	return v.r.call(ctx, stepProject, func() error { return v.Memory.EditDocument(ctx, id, ttl, edit) })
}

func (v *storeView) Session(ctx context.Context, id string) (*state.Session, error) {
	return read(ctx, v, stepRecords, func() (*state.Session, error) { return v.Memory.Session(ctx, id) })
}

func (v *storeView) Container(ctx context.Context, id string) (*state.Container, error) {
	return read(ctx, v, stepLookBeforeStop, func() (*state.Container, error) { return v.Memory.Container(ctx, id) })
}

func (v *storeView) Admit(ctx context.Context, by state.Authority, a state.Admission) (*state.Session, error) {
	return asked(ctx, v, stepAdmit, by, func() (*state.Session, error) { return v.Memory.Admit(ctx, by, a) }, v.session)
}

func (v *storeView) Bind(ctx context.Context, by state.Authority, b state.Binding) (*state.Session, error) {
	return asked(ctx, v, stepBind, by, func() (*state.Session, error) { return v.Memory.Bind(ctx, by, b) }, func(s *state.Session) {
		v.session(s)
		v.r.w.check.bound(v.r, s)
	})
}

func (v *storeView) Unbind(ctx context.Context, by state.Authority, u state.Unbinding) (*state.Session, error) {
	return asked(ctx, v, stepUnbind, by, func() (*state.Session, error) { return v.Memory.Unbind(ctx, by, u) }, v.session)
}

func (v *storeView) Ready(ctx context.Context, by state.Authority, id string, bindRev int64, cold bool) (_ *state.Session, first bool, _ error) {
	s, err := asked(ctx, v, stepReady, by, func() (s *state.Session, err error) {
		s, first, err = v.Memory.Ready(ctx, by, id, bindRev, cold)
		return s, err
	}, func(s *state.Session) {
		v.session(s)
		v.r.w.check.readied(s)
	})
	return s, first, err
}

func (v *storeView) Refuse(ctx context.Context, by state.Authority, id string, bindRev int64, why string) (*state.Session, error) {
	return asked(ctx, v, stepRefuse, by, func() (*state.Session, error) { return v.Memory.Refuse(ctx, by, id, bindRev, why) }, v.session)
}

func (v *storeView) End(ctx context.Context, by state.Authority, e state.End) (*state.Session, error) {
	at := stepEnd
	if by.Container != "" {
		at = stepOwnerEnds
	}
	return asked(ctx, v, at, by, func() (*state.Session, error) {
		before, _ := v.Memory.Session(ctx, e.Session)
		s, err := v.Memory.End(ctx, by, e)
		if err == nil {
			v.r.w.check.ending(before, s, by)
		}
		return s, err
	}, v.session)
}

func (v *storeView) Amend(ctx context.Context, by state.Authority, a state.Amendment) (*state.Session, error) {
	return asked(ctx, v, stepAmend, by, func() (*state.Session, error) { return v.Memory.Amend(ctx, by, a) }, v.session)
}

func (v *storeView) Wait(ctx context.Context, by state.Authority, ids []string, more time.Duration) error {
	return v.r.call(ctx, stepWait, func() error { return v.Memory.Wait(ctx, by, ids, more) })
}

func (v *storeView) Release(ctx context.Context, by state.Authority, container, id string) error {
	return v.r.call(ctx, stepRelease, func() error { return v.Memory.Release(ctx, by, container, id) })
}

func (v *storeView) Register(ctx context.Context, reg state.Registration) (*state.Container, error) {
	return asked(ctx, v, stepRegister, state.Authority{}, func() (*state.Container, error) { return v.Memory.Register(ctx, reg) }, v.container)
}

func (v *storeView) Report(ctx context.Context, by state.Authority, report state.Report) (*state.Container, error) {
	return asked(ctx, v, stepReport, by, func() (*state.Container, error) { return v.Memory.Report(ctx, by, report) }, v.container)
}

func (v *storeView) Claim(ctx context.Context, t state.Takeover) (*state.Container, error) {
	return asked(ctx, v, stepClaim, state.Authority{}, func() (*state.Container, error) { return v.Memory.Claim(ctx, t) }, v.container)
}

func (v *storeView) Drain(ctx context.Context, by state.Authority, id, bootID string) (*state.Container, error) {
	return asked(ctx, v, stepDrain, by, func() (*state.Container, error) { return v.Memory.Drain(ctx, by, id, bootID) }, func(c *state.Container) {
		v.container(c)
		v.r.w.check.drained(c, by, v.r.acting, v.r.believed)
	})
}

func (v *storeView) Undrain(ctx context.Context, by state.Authority, id, bootID string) (*state.Container, error) {
	return asked(ctx, v, stepUndrain, by, func() (*state.Container, error) { return v.Memory.Undrain(ctx, by, id, bootID) }, func(c *state.Container) {
		v.container(c)
		v.r.w.tally.mark("a container was opened again")
	})
}

func (v *storeView) BeginStop(ctx context.Context, by state.Authority, id, bootID string) (*state.Container, error) {
	return asked(ctx, v, stepBeginStop, by, func() (*state.Container, error) { return v.Memory.BeginStop(ctx, by, id, bootID) }, func(c *state.Container) {
		v.container(c)
		v.r.w.check.stopping(c)
	})
}

func (v *storeView) GiveUp(ctx context.Context, by state.Authority, g state.GivingUp) (*state.Container, error) {
	return asked(ctx, v, stepBeginStop, by, func() (*state.Container, error) { return v.Memory.GiveUp(ctx, by, g) }, func(c *state.Container) {
		v.container(c)
		v.r.w.check.givenUp(c)
	})
}

func (v *storeView) MarkGone(ctx context.Context, by state.Authority, id, bootID string) (*state.Container, error) {
	return asked(ctx, v, stepMarkGone, by, func() (*state.Container, error) { return v.Memory.MarkGone(ctx, by, id, bootID) }, func(c *state.Container) {
		v.container(c)
		v.r.w.check.gone(c)
	})
}

func (v *storeView) CreateLaunch(ctx context.Context, by state.Authority, l state.Launch) (*state.Launch, error) {
	return asked(ctx, v, stepIntent, by, func() (*state.Launch, error) { return v.Memory.CreateLaunch(ctx, by, l) }, func(*state.Launch) { v.r.w.check.intended() })
}

func (v *storeView) UpdateLaunch(ctx context.Context, by state.Authority, id string, u state.LaunchUpdate) (*state.Launch, error) {
	return asked(ctx, v, stepRecord, by, func() (*state.Launch, error) { return v.Memory.UpdateLaunch(ctx, by, id, u) }, v.r.w.check.launch)
}

func (v *storeView) ForgetLaunch(ctx context.Context, by state.Authority, id string) error {
	return v.r.call(ctx, stepForget, func() error {
		err := v.Memory.ForgetLaunch(ctx, by, id)
		if err == nil {
			v.r.w.check.wrote(v.r, stepForget, by)
		}
		return err
	})
}

func (v *storeView) Restore(ctx context.Context, seen int64, records state.Records) error {
	return v.r.call(ctx, stepGiveBack, func() error {
		err := v.Memory.Restore(ctx, seen, records)
		if err == nil {
			v.r.w.tally.mark("a store was given back what it had lost")
		}
		return err
	})
}

func (v *storeView) MarkWhole(ctx context.Context, by state.Authority, f state.Filling) error {
	return v.r.call(ctx, stepMarkWhole, func() error {
		err := v.Memory.MarkWhole(ctx, by, f)
		if err == nil {
			v.r.w.check.wrote(v.r, stepMarkWhole, by)
			v.r.w.tally.mark("a store was found whole again")
		}
		return err
	})
}
