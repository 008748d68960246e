//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// bind gives a crowd its slots, through the whole service and a real Redis, and by the planner
// alone. What it tells of the bindings is what Redis holds of them at the end: when each was
// made, by Redis's clock, and that no session has two.
func bind(ctx context.Context, b *bench) error {
	const containers = 40
	slots := b.count(250)
	n := containers * slots
	b.title("Bind: %d sessions in %d containers, one leader, one Redis", n, containers)
	s, err := b.startService(ctx, stage.Options{Containers: containers, Slots: slots, Notifications: true})
	if err != nil {
		return err
	}
	defer s.Close()
	cpu := treeCPU(s.Pid())
	ids := make([]string, n)
	const batch = 500
	begin := time.Now()
	for from := 0; from < n; from += batch {
		pipe := s.Redis.Pipeline()
		for i := from; i < min(from+batch, n); i++ {
			ids[i] = fmt.Sprintf("ses_bind_%d", i)
			pipe.SetEx(ctx, "session:"+ids[i], stage.DocumentOf(ids[i], fmt.Sprintf("user_%d", i%2000), "pending"), stage.DocumentLife)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("writing documents: %w", err)
		}
	}
	var made bindings
	err = s.Until(ctx, 120*time.Second, "every session is shown as ready", func() error {
		if made, err = s.bindings(ctx, ids); err != nil {
			return err
		}
		if made.shown < n {
			return fmt.Errorf("%d of %d are bound, %d shown: %w", len(made.at), n, made.shown, stage.ErrNotYet)
		}
		return nil
	})
	if err != nil {
		return err
	}
	all := time.Since(begin)
	cpu = treeCPU(s.Pid()) - cpu
	slices.SortFunc(made.at, time.Time.Compare)
	first, last := made.at[0], made.at[n-1]
	planner, err := planned(ctx)
	if err != nil {
		return err
	}
	table(b.out, [][]string{
		{"what", "per second", "time", "goal"},
		{"binds, first to last, by Redis's clock", fmt.Sprintf("%.0f", float64(n-1)/last.Sub(first).Seconds()), last.Sub(first).Round(10 * time.Millisecond).String(), "≥ 1,000/s"},
		{"the slowest tenth of them", fmt.Sprintf("%.0f", slowestTenth(made.at)), "", ""},
		{"first SETEX → last one shown as ready in its document", fmt.Sprintf("%.0f", float64(n)/all.Seconds()), all.Round(10 * time.Millisecond).String(), ""},
		{"the planner alone", fmt.Sprintf("%.0f", planner), "", "≥ 100,000/s"},
	})
	fmt.Fprintf(b.out, "\n%d sessions bound twice, %d slots taken by sessions that are bound elsewhere, %d sessions that some container was told of twice. CPU of `serve`: %s ms per session, all that follows a bind included.\n",
		made.twice, made.astray, s.Fakes.ToldTwice(), ms(cpu/time.Duration(n)))
	if made.twice+made.astray+s.Fakes.ToldTwice() > 0 {
		return fmt.Errorf("%d sessions were bound twice, %d slots are astray, %d were created twice", made.twice, made.astray, s.Fakes.ToldTwice())
	}
	return nil
}

// slowestTenth is the rate of binds over that tenth of them, in a row, that took longest.
func slowestTenth(at []time.Time) float64 {
	tenth := max(1, len(at)/10)
	var worst time.Duration
	for i := 0; i+tenth < len(at); i += tenth {
		worst = max(worst, at[i+tenth].Sub(at[i]))
	}
	if worst == 0 {
		return 0
	}
	return float64(tenth) / worst.Seconds()
}

// bindings is what Redis holds of them.
type bindings struct {
	at     []time.Time // of those that were bound
	shown  int         // documents that say ready
	twice  int         // sessions in the slots of two containers, or bound more than once
	astray int         // slots of sessions that are not bound there
}

func (s *service) bindings(ctx context.Context, ids []string) (made bindings, err error) {
	const prefix = "wallcrawler:{default}:"
	containers, err := s.Redis.ZRange(ctx, prefix+"containers", 0, -1).Result()
	if err != nil {
		return made, err
	}
	holder := map[string]string{}
	for _, c := range containers {
		held, err := s.Redis.SMembers(ctx, prefix+"slots:"+c).Result()
		if err != nil {
			return made, err
		}
		for _, id := range held {
			if holder[id] != "" {
				made.twice++
			}
			holder[id] = c
		}
	}
	for part := range slices.Chunk(ids, 500) {
		pipe := s.Redis.Pipeline()
		hashes, documents := make([]*redis.SliceCmd, len(part)), make([]*redis.StringCmd, len(part))
		for i, id := range part {
			hashes[i] = pipe.HMGet(ctx, prefix+"session:"+id, "container", "boundAt", "attempts")
			documents[i] = pipe.Get(ctx, "session:"+id)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return made, err
		}
		for i, id := range part {
			v := hashes[i].Val()
			container, _ := v[0].(string)
			bound, _ := v[1].(string)
			attempts, _ := v[2].(string)
			if ms, err := strconv.ParseInt(bound, 10, 64); err == nil && container != "" {
				made.at = append(made.at, time.UnixMilli(ms))
			}
			if attempts != "" && attempts != "1" && attempts != "0" {
				made.twice++
			}
			if holder[id] != container {
				made.astray++
			}
			if strings.Contains(documents[i].Val(), `"ready"`) {
				made.shown++
			}
		}
	}
	return made, nil
}

// planned is how many sessions the planner places in a second.
func planned(ctx context.Context) (float64, error) {
	text, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkBind$", "./controller/plan").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("running the planner's benchmark: %w\n%s", err, text)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		for i := 1; i < len(f); i++ {
			if f[i] == "binds/s" {
				return strconv.ParseFloat(f[i-1], 64)
			}
		}
	}
	return 0, fmt.Errorf("the planner's benchmark printed no binds/s:\n%s", text)
}
