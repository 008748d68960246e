package main

const (
	bindGo       = "controller/plan/bind.go"
	capacityGo   = "controller/plan/capacity.go"
	containersGo = "controller/plan/containers.go"
	sessionsGo   = "controller/plan/sessions.go"
	hungGo       = "controller/plan/hung.go"
	viewGo       = "controller/plan/view.go"
	leaseGo      = "controller/lease.go"
	callsGo      = "controller/calls.go"
	actGo        = "controller/act.go"
	observeGo    = "controller/observe.go"
	memoryGo     = "state/memory.go"
	memSessions  = "state/memory_sessions.go"
	memContainer = "state/memory_containers.go"
	mirrorGo     = "state/mirror.go"
	checkerGo    = "controller/sim/checker.go"
	livenessGo   = "controller/sim/liveness.go"
	lossGo       = "controller/sim/loss.go"
)

// The nets beside the simulation.
var (
	selfTest = net{"controller/sim", "TestTheCheckerObjectsToWorldsThatAreBad"}
	onMemory = net{"state", "TestMemory"}
	onRedis  = net{"state/redisstore", "TestOnRedis"}
	planning = net{"controller/plan", "TestMake"}
	hanging  = net{"controller/plan", "TestAContainerThatHangsIsGivenUpOnTheWordOfAll"}
	telling  = net{"state", "TestASlowAnswerSetsNoClockAhead"}

	executing = net{"controller", "TestATaskIsStoppedOnlyAfterALastLook"}
	leading   = net{"controller", "TestANewLeaderReadsBeforeItPlans"}
	reigning  = net{"controller", "TestWhatAReignPlannedIsNotWrittenUnderALaterEpoch"}
	yielding  = net{"controller", "TestALeaderThatReadsNothingGivesTheLeadUp"}
	counting  = net{"controller", "TestEndsAreCountedWhateverTheClockSays"}
)

const lua = "state/redisstore/lua/"

// mutants are the planted bugs. A rule that plan and the store both keep needs an edit of each.
var mutants = []mutant{
	// plan
	{name: "plan: silent containers are bound to", edits: []edit{{viewGo, "c.Phase == state.ContainerReady && (!m.suspect(c) || m.excused(c)) &&", "c.Phase == state.ContainerReady &&"}}},
	{name: "plan: whom the store does not take is placed", by: planning, edits: []edit{{bindGo, "&& c.Takes(s.UserID, m.Pool.Dedicated) ", ""}}},
	{name: "plan: a task that is to stop is over", edits: []edit{{viewGo, "if !t.Stopped() {", `if !t.Stopped() && t.DesiredStatus != "STOPPED" {`}}},
	{name: "plan: a task that one listing lacks is over", edits: []edit{{viewGo, "if absent && m.TasksAt.Sub(since) > m.AbsentAfter && m.destroy && m.suspect(c) {", "if absent {"}}},
	{name: "plan: a container is given up on nobody's word", by: hanging, edits: []edit{{hungGo, "return m.unheard(c)", `return ""`}}},
	{name: "plan: a silent fleet is given up at once", by: hanging, edits: []edit{{hungGo, "max(1, m.expected/hungShare) - lately", "max(1, m.expected) - 0*lately"}}},
	{name: "plan: a container without a known task stays for ever", edits: []edit{{viewGo, "return m.neverKnown(c)", `return "", false`}}},
	{name: "plan: a missing document is a wish to end", edits: []edit{{sessionsGo, "if m.Unseen[s.ID] > m.RestoreWithin {", "if m.Unseen[s.ID] >= 0 {"}}},
	{name: "plan: a session ends a minute before its deadline", edits: []edit{{sessionsGo, "s.Deadline.IsZero() || m.Now.Before(s.Deadline) {", "s.Deadline.IsZero() || m.Now.Add(time.Minute).Before(s.Deadline) {"}}},
	{name: "plan: deadlines pass unseen", edits: []edit{{sessionsGo, "m.end(s, state.DeadlinePassed, \"\")\n\treturn true", "return false"}}},
	{name: "plan: a final wish is not heard", edits: []edit{{sessionsGo, "case s.Live() && d.Spec.Final():", "case false:"}}},
	{name: "plan: sessions of a former life are left alone", edits: []edit{{sessionsGo, "!ok || c.BootID != s.BootID || c.Phase == state.Gone ||", "!ok || c.Phase == state.Gone ||"}}},
	{name: "plan: sessions of a lost container are left alone", edits: []edit{{sessionsGo, "!ok || c.BootID != s.BootID || c.Phase == state.Gone || c.GivenUp() {", "ok && c.BootID != s.BootID {"}}},
	{name: "plan: one attempt is enough", edits: []edit{{sessionsGo, "if s.Attempts >= m.MaxAttempts {", "if s.Attempts >= 1 {"}}},
	{name: "plan: a minute of waiting is enough", edits: []edit{{sessionsGo, "s.Waited > m.WaitLimit {", "s.Waited > m.WaitLimit/5 {"}}},
	{name: "plan: ready is not shown", edits: []edit{{sessionsGo, `d.Spec.Status != string(state.Ready) {
			m.do(`, `d.Spec.Status == string(state.Ready) {
			m.do(`}}},
	{name: "plan: what is pending in this view is ended as confirmed", by: planning, edits: []edit{{sessionsGo, "s.BindRev, reason, false})\n}", "s.BindRev, reason, s.Phase == state.Pending})\n}"}}},
	{name: "plan: the minimum is not kept up", edits: []edit{{capacityGo, "wanted = max(wanted, pool.Min-staying, 0)", "wanted = max(wanted, 0)"}}},
	{name: "plan: the minimum is kept by what starts", edits: []edit{{capacityGo, "staying-s.starting-pool.Min", "staying-pool.Min"}}},
	{name: "plan: the maximum is no bound", edits: []edit{{capacityGo, "m.Pool.Max-s.containers", "100-s.containers"}}},
	{name: "plan: all that is idle leaves at once", edits: []edit{{capacityGo, "max(1, s.containers/10)-s.leaving", "1000"}}},
	{name: "plan: what starts is not counted", edits: []edit{{capacityGo, "s.containers++\n\t\t\ts.starting++\n\t\t\ts.coming += m.Pool.MaxSessions", "s.coming += 0"}}},
	{name: "plan: nothing is launched for who waits", edits: []edit{{capacityGo, "short := s.unplaced + pool.WarmSlots", "short := pool.WarmSlots"}}},
	{name: "plan: a launch is waited for for ever", edits: []edit{{containersGo, "case m.past(l.CreatedAt, m.StartDeadline):", "case false:"}}},
	{name: "plan: the task of a launch that was given up runs on", edits: []edit{{containersGo, "case running && l.Outcome == state.Expired:", "case false:"}}},
	{name: "plan: a stopping container's task is not stopped", edits: []edit{{containersGo, `m.stopTask(m.taskARN(c), "it is drained, or never could be reached")`, "_ = c"}}},
	{name: "plan: who cannot be reached is kept", edits: []edit{{containersGo, "case c.Phase == state.PendingVerification && m.past(c.RegisteredAt, m.StartDeadline):", "case false:"}}},
	{name: "plan: drained containers are kept", edits: []edit{{containersGo, "if c.Phase != state.Draining || c.DrainAck", "if c.Phase == state.Draining || c.DrainAck"}}},

	{name: "plan: who has failed a session is tried again", by: planning, edits: []edit{{bindGo, "return !s.Excludes(c.ID) && c.Takes", "return c.Takes"}}},
	{name: "plan: half a fleet that is silent hides nothing", by: planning, edits: []edit{{viewGo, "if m.expected >= 4 && m.heard*2 < m.expected {", "if m.expected >= 4 && m.heard < 0 {"}}},
	{name: "plan: an old listing of ECS is as good as a new one", by: planning, edits: []edit{{viewGo, "case m.past(m.TasksAt, m.MaxTasksAge):", "case false:"}}},
	{name: "plan: a paused pool launches", by: planning, edits: []edit{{"controller/plan/launches.go", "case m.Pool.Paused:\n", "case false:\n"}}},

	// the lease and the executor
	{name: "lease: the leader does not look at its clock", edits: []edit{{leaseGo, "if l.leading && !l.now().Before(l.until) {", "if false {"}}},
	{name: "lease: it lasts from the answer", edits: []edit{{leaseGo, "l.until = sent.Add(ttl - leaseMargin)", "l.until = l.now().Add(ttl)"}}},
	{name: "executor: tasks are stopped without a last look", by: executing, edits: []edit{{callsGo, "if err := k.c.mayStop(ctx, a.ID); err != nil {", "if err := ctx.Err(); err != nil {"}}},
	{name: "executor: calls are never repeated", edits: []edit{{callsGo, "k.retries[key] = retry{r.failures + 1, k.c.now().Add(pause)}", "k.inFlight[key] = true"}}},
	{name: "executor: a new leader plans before it has read", by: leading, edits: []edit{{"controller/controller.go", "return c.cfg.Mirror.ListedSince(c.began)", "return true"}}},
	{name: "executor: a plan is written under whatever epoch there is", by: reigning, edits: []edit{
		{leaseGo, "return state.Authority{Epoch: epoch}, l.holds(epoch)", "epoch, held := l.present()\n\treturn state.Authority{Epoch: epoch}, held"}}},
	{name: "executor: who reads nothing keeps the lead", by: yielding, edits: []edit{{"controller/blind.go", "if age <= limit ||", "if age >= 0 ||"}}},
	{name: "executor: what ends is counted by the clock alone", by: counting, edits: []edit{{"controller/ends.go", "(e.live[s.ID] || within)", "within"}}},
	{name: "executor: the time that sessions wait counts tenfold", edits: []edit{{"controller/controller.go", "c.cfg.Store.Wait(ctx, by, ids, waitInterval)", "c.cfg.Store.Wait(ctx, by, ids, 10*waitInterval)"}}},
	{name: "executor: a listing of ECS is never taken in", edits: []edit{{observeGo, "w.tasksAt = at", "_ = at"}}},

	// the store
	{name: "store: any epoch will do", edits: []edit{{memoryGo, "by.Epoch == 0 || by.Epoch != m.epoch {", "by.Epoch == 0 {"}}},
	{name: "store: a launch whose container is there is given up", by: onMemory, edits: []edit{{"state/memory_launches.go", "c.Phase != Stopping && c.Phase != Gone {", "c.Phase == Gone {"}}},
	{name: "store: whoever asks leads", edits: []edit{{memoryGo, "case held && m.leader != replica:", "case held && m.leader == \"\":"}}},
	{name: "store: binding takes no slot", edits: []edit{{memSessions, "host.Slots = withID(c.Slots, s.ID)", "host.Slots = c.Slots"}}},
	{name: "plan and store: full containers are bound to", edits: []edit{
		{memSessions, "if c.Free() == 0 {", "if c.Free() < 0 {"},
		{bindGo, "if kind(c) && c.Free() > 0 {", "if kind(c) {"},
		{bindGo, "&candidate{Container: c, free: c.Free(), tenant", "&candidate{Container: c, free: c.Free() + 1, tenant"}}},
	{name: "store: an end frees no slot", by: onMemory, edits: []edit{{memSessions, "if c, ok := m.containers[s.Container]; ok && s.Phase != Pending {", "if c, ok := m.containers[s.Container]; ok && s.Phase == Pending {"}}},
	{name: "store: a released slot stays", edits: []edit{{memSessions, "m.freeSlot(c, id, m.stamp())", "_ = m.stamp()"}}},
	{name: "store: what was refused ends for ever", edits: []edit{{memSessions, "if s.Phase != Pending && s.Refused == \"\" && !e.Confirmed {", "if s.Phase != Pending && !e.Confirmed {"}}},
	{name: "store: what has become ready ends as failed", by: onMemory, edits: []edit{{memSessions, "e.Reason == Failed && s.Phase == Ready {", "e.Reason == Failed && s.Phase == Bound {"}}},
	{name: "store: what has been bound ends as waiting for it", by: onMemory, edits: []edit{{memSessions, "s.Phase == Bound && e.BindRev == 0 {", "s.Phase == Bound && e.BindRev == 1 {"}}},
	{name: "store: an ended id is admitted again", by: onMemory, edits: []edit{{memSessions, "if s, ok := m.sessions[a.ID]; ok {", "if s, ok := m.sessions[a.ID]; ok && s.Phase != Ended {"}}},
	{name: "store: registering again is another life", edits: []edit{{memContainer, "if c.BootID != r.BootID {", "if c.BootID != \"\" {"}}},
	{name: "store: who is stopping may register", edits: []edit{{memContainer, "} else if old.Phase == Stopping || old.Phase == Gone {", "} else if old.Phase == Gone && r.BootID == \"\" {"}}},

	// the mirror
	{name: "mirror: hints are not read", edits: []edit{
		{mirrorGo, "if known = m.sessions.has(h.ID, h.Rev); !known {", "if known = true; !known {"},
		{mirrorGo, "sessions := append(m.sessions.stale(index.Sessions), doubted.sessions...)", "sessions := append(m.sessions.stale(nil), doubted.sessions...)"}}},
	{name: "mirror: a slow answer sets the clock ahead", by: telling, edits: []edit{
		{mirrorGo, "} else if m.storeTime.After(latest) {", "} else {"},
		{mirrorGo, "if after.Sub(before) > slowRead {", "if false {"}}},

	{name: "mirror: hints say nothing of sessions", edits: []edit{{mirrorGo, "if known = m.sessions.has(h.ID, h.Rev); !known {", "if known = true; !known {"}}},

	// the scripts: the simulation runs over the store in memory, which the same suite holds to the same
	{name: "scripts: a full container is bound to", by: onRedis, edits: []edit{{lua + "bind.lua", "if redis.call('SCARD', SLOTS) >= tonumber(c[3]) then", "if redis.call('SCARD', SLOTS) > tonumber(c[3]) then"}}},
	{name: "scripts: another life is bound to", by: onRedis, edits: []edit{{lua + "bind.lua", "if c[1] ~= 'ready' or c[2] ~= ARGV[7] then", "if c[1] ~= 'ready' then"}}},
	{name: "scripts: any epoch will do", by: onRedis, edits: []edit{{lua + "prelude.lua", "ARGV[2] ~= '0' and ARGV[2] == epoch then", "ARGV[2] ~= '0' then"}}},
	{name: "scripts: any owner will do", by: onRedis, edits: []edit{{lua + "prelude.lua", "if ownerSeq and ownerSeq == ARGV[4] then", "if ownerSeq then"}}},
	{name: "scripts: a busy container passes the point of no return", by: onRedis, edits: []edit{{lua + "begin_stop.lua", "if used > 0 then", "if used > 10 then"}}},
	{name: "scripts: an order that was never given is acknowledged", by: onRedis, edits: []edit{{lua + "report.lua", "if ack > tonumber(c[3] or '0') or ack < given then ack = given end", "if ack < given then ack = given end"}}},
	{name: "scripts: an ended id is admitted again", by: onRedis, edits: []edit{{lua + "admit.lua", "if phase then\n", "if phase and phase ~= 'ended' then\n"}}},
	{name: "scripts: an end frees no slot", by: onRedis, edits: []edit{{lua + "end.lua", "if s.phase ~= 'pending' then freeSlot(sessionID) end", ""}}},
	{name: "scripts: what was refused ends for ever", by: onRedis, edits: []edit{{lua + "end.lua", "and s.refused == '' and not confirmed", "and not confirmed"}}},
	{name: "scripts: what has become ready ends as failed", by: onRedis, edits: []edit{{lua + "end.lua", "if leading and s.phase == 'ready' and", "if leading and s.phase == 'bound' and"}}},
	{name: "scripts: what has been bound ends as waiting for it", by: onRedis, edits: []edit{{lua + "end.lua", "and ARGV[7] == '0' then", "and ARGV[7] == '1' then"}}},
	{name: "scripts: unbinding frees the slot", by: onRedis, edits: []edit{{lua + "unbind.lua", "if s.refused ~= '' or redis.call('HGET', CONTAINER, 'phase') == 'gone' then", "do"}}},
	{name: "scripts: whoever asks leads", by: onRedis, edits: []edit{{lua + "lease_acquire.lua", "if holder and holder ~= ARGV[1] then", "if not holder then"}}},
	{name: "scripts: a launch whose container is there is given up", by: onRedis, edits: []edit{{lua + "launch_update.lua", "if phase and phase ~= 'stopping' and phase ~= 'gone' then", "if phase == 'gone' then"}}},
	{name: "scripts: a document is written over whatever it says", by: onRedis, edits: []edit{{lua + "document_swap.lua", "if type(value) == 'table' or value ~= ARGV[1] then", "if type(value) == 'table' then"}}},

	// the checker
	{name: "checker: a busy task may be stopped", by: selfTest, edits: []edit{{checkerGo, "busy && !k.dark(t.process) && !(expired", "busy && k.dark(t.process) && !(expired"}}},
	{name: "checker: one session too many is no matter", by: selfTest, edits: []edit{{checkerGo, "if used > c.MaxSessions {", "if used > c.MaxSessions+1 {"}}},
	{name: "checker: an old epoch is no matter", by: selfTest, edits: []edit{{checkerGo, "by.Epoch != 0 && by.Epoch != k.w.epoch && by.Epoch != k.losses.epoch {", "by.Epoch != 0 && by.Epoch > k.w.epoch && by.Epoch != k.losses.epoch {"}}},
	{name: "checker: a drain below the minimum is no matter", by: selfTest, edits: []edit{{checkerGo, "staying < k.w.policy.Pool.Min && !retired {", "staying+1 < k.w.policy.Pool.Min && !retired {"}}},
	{name: "checker: sessions may be lost for no reason", by: selfTest, edits: []edit{{checkerGo, "if serves {", "if !serves {"}}},
	{name: "checker: what is held may be ended as confirmed", by: selfTest, edits: []edit{{livenessGo, "b != nil && b.goneAt == 0 {", "b != nil && b.goneAt != 0 {"}}},
	{name: "checker: what somebody remembers excuses, too", by: selfTest, edits: []edit{{lossGo, "{ _, known := m.Container(p.id); return known })", "{ return false })"}}},
	{name: "checker: nothing lasts", by: selfTest, edits: []edit{{livenessGo, "return k.w.now - k.since[what]", "return 0"}}},
}
