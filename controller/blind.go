package controller

import (
	"context"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// blindFor is for how long a leader may go without having read the store as a whole, beside the time
// that such a reading takes. Then it gives the lead up, and asks for it again only once it has read:
// who can renew a lease and not read plans nothing (at the beginning of a reign) or plans by what was
// (later). It binds where nobody is any more, which the store refuses; it sees no container register,
// so that it takes its launches for failed and waits for none; and it keeps the lead from another that
// may see. Where nobody can read nobody leads, which is as well: waiting counts only while somebody
// does, and clients that are joined need no leader.
const blindFor = 2 * state.LeaseTTL

// sight tells how old this replica's view of the store as a whole is, and how old it may be: blindFor,
// and what two readings take (a view is as of the beginning of one, and is replaced at the end of the next),
// since on a store that is slow for everybody nobody does better. A single one that took far longer,
// because the process stood still, say, is no leave to be blind for as long.
func (c *Controller) sight() (age, limit time.Duration) {
	from, took := c.cfg.Mirror.Listing()
	return c.now().Sub(from), blindFor + 2*min(took, blindFor)
}

// blind tells whether that is older than it may be, or was never read.
func (c *Controller) blind() bool {
	age, limit := c.sight()
	return age > limit
}

// givesUp gives the lead up if this replica is blind, and has had the time to read since it won it. It
// tells whether the reign is over by that. The campaign gives the lease back.
func (c *Controller) givesUp() bool {
	age, limit := c.sight()
	if age <= limit || c.now().Sub(c.began) <= limit {
		return false
	}
	c.log.Warn("lead given up: the store's records were not readable", "age", age.Round(time.Second))
	c.lead.yield(c.epoch)
	c.rouseCampaign()
	return true
}

// unread notes a round in which nothing was planned, because the records have not been read since the
// lead was won.
func (c *Controller) unread() {
	c.metrics.rounds.WithLabelValues("unobserved").Inc()
	if !c.toldUnread {
		c.toldUnread = true
		age, _ := c.sight()
		c.log.Warn("nothing planned yet: the store's records were not readable since the lead was won", "age", age.Round(time.Second))
	}
}

// catchUp waits until this replica has read what the leaders before have written. It tells whether the
// reign goes on then.
func (c *Controller) catchUp(ctx context.Context, lost <-chan struct{}) bool {
	poll := time.NewTicker(syncPoll)
	defer poll.Stop()
	tick := time.NewTicker(c.cfg.Tick)
	defer tick.Stop()
	for !c.caughtUp() {
		select {
		case <-ctx.Done():
			return false
		case <-lost:
			c.log.Warn("leadership lost")
			return false
		case <-tick.C:
			c.unread()
			if c.givesUp() {
				return false
			}
			c.lead.held() // which finds out whether its time is over
		case <-poll.C:
		}
	}
	return true
}
