package controller

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// closeWatch is how long a task that was hinted at is asked after every pollEvery: ECS
	// takes its time to notice that a process is gone.
	closeWatch = 20 * time.Second
	pollEvery  = time.Second
	// fleetTimeout bounds one look at ECS.
	fleetTimeout = 30 * time.Second
	// documentBatch is how many documents one call reads.
	documentBatch = 500
)

// world is the leader's view beyond the mirror: documents and tasks. One goroutine owns it;
// the slow listings run beside that and come back through listings.
type world struct {
	cfg      Config
	listings chan listing
	running  sync.WaitGroup

	documents   map[string]*state.Document
	readAt      map[string]time.Time // by document id, monotonic
	edited      map[string]bool
	sightings   sightings
	documentsAt time.Time // the store's clock, at the last listing but one
	listedAt    time.Time // the store's clock, at the start of the last listing
	nextWhole   time.Time // monotonic
	listingDocs bool
	wholeAgain  bool // asked for while one was under way

	tasks        map[string]state.Task
	tasksAt      time.Time // the store's clock
	tasksSince   time.Time // the same, of the first listing that began after since
	since        time.Time // when the store was last found to have lost data; monotonic
	filling      state.Filling
	absentSince  map[string]time.Time
	nextList     time.Time
	listingTasks bool
	listAgain    bool
	watched      map[string]time.Time // ARNs asked after until then
	stoppedAt    map[string]time.Time // ARNs that were told to stop since the last listing began; monotonic
	nextPoll     time.Time
	polling      bool

	refusedSince map[string]time.Time // by container; the store's clock
	nextProbe    time.Time
	probing      bool

	replicas    []state.Replica
	testimonies []state.Testimony
	nextHearing time.Time
	hearing     bool

	emptySince map[string]time.Time

	notable
}

// listing is what came back from beside the loop.
type listing struct {
	began time.Time // monotonic
	err   error

	documents []state.Document // with wholeDocuments: all of them
	tasks     []state.Task
	refused   map[string]bool // by container; with silentContainers

	replicas    []state.Replica // with testimonies
	testimonies []state.Testimony

	whole wholeness
}

// wholeness says what a listing is a listing of.
type wholeness int

const (
	allDocuments wholeness = iota
	allTasks
	someTasks
	silentContainers
	testimonies
)

func newWorld(cfg Config) *world {
	return &world{
		cfg:         cfg,
		listings:    make(chan listing, 4),
		documents:   map[string]*state.Document{},
		readAt:      map[string]time.Time{},
		edited:      map[string]bool{},
		sightings:   newSightings(),
		tasks:       map[string]state.Task{},
		absentSince: map[string]time.Time{},
		watched:     map[string]time.Time{},
		stoppedAt:   map[string]time.Time{},
		emptySince:  map[string]time.Time{},
		notable:     newNotable(),
	}
}

// wait returns when nothing runs beside the loop any more.
func (w *world) wait() {
	done := make(chan struct{})
	go func() { w.running.Wait(); close(done) }()
	for {
		select {
		case <-w.listings:
		case <-done:
			return
		}
	}
}

// observe reads the documents that were hinted at, and starts the listings that are due.
func (w *world) observe(ctx context.Context, documents, tasks []string, relist bool) error {
	now := w.cfg.machine.now()
	if f := w.cfg.Mirror.Filling(); f.Incarnation != w.filling.Incarnation || !f.LostAt.Equal(w.filling.LostAt) {
		if !f.LostAt.IsZero() || w.filling.Incarnation != "" && f.Incarnation != w.filling.Incarnation {
			// What was listed before says nothing of what is missing now.
			w.tasksSince, w.since = time.Time{}, now
			w.nextList, w.listAgain = now, w.listingTasks
			relist = true
		}
		w.filling = f
	}
	if relist {
		w.nextWhole = now
		w.wholeAgain = w.listingDocs
	}
	for _, arn := range tasks {
		if arn == "" {
			w.nextList = now
			w.listAgain = w.listingTasks
			continue
		}
		w.watched[arn] = now.Add(closeWatch)
		w.nextPoll = now
	}
	if err := w.readDocuments(ctx, documents); err != nil {
		return err
	}
	w.startListings(ctx, now)
	w.noteEmpty()
	return nil
}

// readDocuments reads named documents now.
func (w *world) readDocuments(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	began := w.cfg.machine.now()
	docs, err := w.cfg.Store.DocumentsOf(ctx, ids)
	if err != nil {
		return fmt.Errorf("reading %d documents: %w", len(ids), err)
	}
	for i := range docs {
		w.take(&docs[i], began)
	}
	return nil
}

// take files one document as read.
func (w *world) take(d *state.Document, began time.Time) {
	session, known := w.cfg.Mirror.Session(d.ID)
	if d.Missing && (!known || !session.Live()) {
		w.drop(d.ID)
		return
	}
	before := w.documents[d.ID]
	w.documents[d.ID] = d
	w.readAt[d.ID] = began
	if d.Missing {
		w.sightings.miss(session, w.cfg.Mirror.Now(), w.filling.LostAt)
	} else {
		w.sightings.see(d.ID, w.storeTime(began))
	}
	if before != nil && bytes.Equal(before.Text, d.Text) && !w.edited[d.ID] {
		return // as it was, and that was no edit
	}
	delete(w.edited, d.ID)
	if !d.Missing {
		w.look(d, session)
	}
	if known && session.Live() && plan.Edited(session, d) {
		w.edited[d.ID] = true
	}
}

// storeTime is the store's clock at a moment of the monotonic one.
func (w *world) storeTime(at time.Time) time.Time {
	return w.cfg.Mirror.Now().Add(-w.cfg.machine.now().Sub(at))
}

func (w *world) drop(id string) {
	delete(w.documents, id)
	delete(w.readAt, id)
	delete(w.edited, id)
	w.sightings.drop(id)
	w.forget(id)
}

// startListings starts what is due beside the loop, each kind once at a time.
func (w *world) startListings(ctx context.Context, now time.Time) {
	if soon := now.Add(w.jittered(w.cfg.Relist)); !w.cfg.Mirror.DocumentsNotified() && w.nextWhole.After(now.Add(2*w.cfg.Relist)) {
		w.nextWhole = soon // notifications have stopped
	}
	if !w.listingDocs && !now.Before(w.nextWhole) {
		w.listingDocs = true
		w.cfg.machine.beside(&w.running, func() { w.listDocuments(ctx) })
	}
	if !w.listingTasks && !now.Before(w.nextList) {
		w.listingTasks = true
		known := w.namedTasks()
		w.cfg.machine.beside(&w.running, func() { w.listTasks(ctx, known) })
	}
	w.startProbes(ctx, now)
	w.startHearing(ctx, now)
	if w.polling || now.Before(w.nextPoll) {
		return
	}
	if arns := w.urgentTasks(now); len(arns) > 0 {
		w.polling = true
		w.cfg.machine.beside(&w.running, func() { w.pollTasks(ctx, arns) })
	}
}

// report hands a listing to the loop, unless that has ended.
func (w *world) report(ctx context.Context, l listing) {
	select {
	case w.listings <- l:
	case <-ctx.Done():
	}
}

func (w *world) listDocuments(ctx context.Context) {
	l := listing{began: w.cfg.machine.now(), whole: allDocuments}
	var ids []string
	if ids, l.err = w.cfg.Store.DocumentIDs(ctx); l.err == nil {
		for chunk := range slices.Chunk(ids, documentBatch) {
			var docs []state.Document
			if docs, l.err = w.cfg.Store.DocumentsOf(ctx, chunk); l.err != nil {
				break
			}
			l.documents = append(l.documents, docs...)
		}
	}
	w.report(ctx, l)
}

func (w *world) listTasks(ctx context.Context, known []string) {
	l := listing{began: w.cfg.machine.now(), whole: allTasks}
	bounded, cancel := context.WithTimeout(ctx, fleetTimeout)
	defer cancel()
	l.tasks, l.err = w.cfg.Fleet.List(bounded, known...)
	w.report(ctx, l)
}

func (w *world) pollTasks(ctx context.Context, arns []string) {
	l := listing{began: w.cfg.machine.now(), whole: someTasks}
	bounded, cancel := context.WithTimeout(ctx, fleetTimeout)
	defer cancel()
	l.tasks, l.err = w.cfg.Fleet.Describe(bounded, arns...)
	w.report(ctx, l)
}

// namedTasks are the ARNs that containers and launches name.
func (w *world) namedTasks() []string {
	named := map[string]bool{}
	for _, c := range w.cfg.Mirror.Containers() {
		if c.TaskARN != "" && c.Phase != state.Gone {
			named[c.TaskARN] = true
		}
	}
	for _, l := range w.cfg.Mirror.Launches() {
		if l.TaskARN != "" {
			named[l.TaskARN] = true
		}
	}
	return slices.Sorted(maps.Keys(named))
}

// urgentTasks are the ARNs that are asked after every second: hinted ones, stopping ones,
// starting ones.
func (w *world) urgentTasks(now time.Time) []string {
	urgent := map[string]bool{}
	for arn, until := range w.watched {
		if t, ok := w.tasks[arn]; now.After(until) || ok && t.Stopped() {
			delete(w.watched, arn)
			continue
		}
		urgent[arn] = true
	}
	for _, c := range w.cfg.Mirror.Containers() {
		if c.Phase == state.Stopping && c.TaskARN != "" {
			urgent[c.TaskARN] = true
		}
	}
	for _, l := range w.cfg.Mirror.Launches() {
		if l.Outcome == state.Started && l.TaskARN != "" {
			urgent[l.TaskARN] = true
		}
	}
	return slices.Sorted(maps.Keys(urgent))
}

// jittered spreads replicas and restarts apart.
func (w *world) jittered(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(w.cfg.machine.random(int64(d*2/5)+1))
}

// merge takes in what came back from beside the loop.
func (w *world) merge(l listing) {
	now := w.cfg.machine.now()
	if l.err != nil {
		w.cfg.Log.Warn("listing went wrong", "doing", "listing "+[]string{"documents", "tasks", "tasks", "containers", "testimonies"}[l.whole], "error", l.err)
	}
	switch l.whole {
	case allDocuments:
		w.listingDocs = false
		interval := w.cfg.Relist
		if w.cfg.Mirror.DocumentsNotified() {
			interval = w.cfg.DocumentsInterval
		}
		w.nextWhole = now.Add(w.jittered(interval))
		if w.wholeAgain {
			w.nextWhole, w.wholeAgain = now, false
		}
		if l.err == nil {
			w.mergeDocuments(l)
		}
	case allTasks:
		w.listingTasks = false
		w.nextList = now.Add(w.jittered(w.cfg.TasksInterval))
		if w.listAgain {
			w.nextList, w.listAgain = now, false
		}
		if l.err == nil {
			w.mergeTasks(l)
		}
	case someTasks:
		w.polling = false
		w.nextPoll = now.Add(pollEvery)
		for _, t := range l.tasks {
			w.file(t, l.began)
		}
	case silentContainers:
		w.mergeProbes(l)
	case testimonies:
		w.mergeHearing(l)
	}
}

// mergeDocuments takes in a whole listing. What was read on its own since the listing began
// is newer; what the listing lacks is read on its own before it counts as missing.
func (w *world) mergeDocuments(l listing) {
	listed := make(map[string]bool, len(l.documents))
	for i := range l.documents {
		d := &l.documents[i]
		listed[d.ID] = true
		if w.readAt[d.ID].After(l.began) {
			continue
		}
		w.take(d, l.began)
	}
	for id := range w.documents {
		if !listed[id] && !w.readAt[id].After(l.began) {
			s, known := w.cfg.Mirror.Session(id)
			if !known || !s.Live() {
				w.drop(id)
				continue
			}
			w.documents[id] = &state.Document{ID: id, Missing: true}
			w.sightings.miss(s, w.cfg.Mirror.Now(), w.filling.LostAt)
		}
	}
	for _, s := range w.cfg.Mirror.Sessions() {
		if s.Live() && !listed[s.ID] && w.documents[s.ID] == nil {
			w.documents[s.ID] = &state.Document{ID: s.ID, Missing: true}
			w.sightings.miss(s, w.cfg.Mirror.Now(), w.filling.LostAt)
		}
	}
	w.documentsAt, w.listedAt = w.listedAt, w.storeTime(l.began)
}

// mergeTasks takes in a complete listing of ECS.
func (w *world) mergeTasks(l listing) {
	at := w.cfg.Mirror.Now()
	w.tasks = make(map[string]state.Task, len(l.tasks))
	for _, t := range l.tasks {
		w.file(t, l.began)
	}
	maps.DeleteFunc(w.stoppedAt, func(_ string, at time.Time) bool { return at.Before(l.began) })
	named := w.namedTasks()
	absent := make(map[string]time.Time)
	for _, arn := range named {
		if _, ok := w.tasks[arn]; ok {
			continue
		}
		absent[arn] = at
		if since, already := w.absentSince[arn]; already {
			absent[arn] = since
		}
	}
	w.absentSince = absent
	w.tasksAt = at
	if w.tasksSince.IsZero() && l.began.After(w.since) {
		w.tasksSince = at
		if !w.filling.LostAt.IsZero() {
			w.nextList = w.cfg.machine.now().Add(cmp.Or(w.cfg.Policy.ListingsApart, plan.DefaultListingsApart) + time.Millisecond)
		}
	}
}

// noteEmpty keeps since when each container has been without sessions.
func (w *world) noteEmpty() {
	now := w.cfg.Mirror.Now()
	present := map[string]bool{}
	for _, c := range w.cfg.Mirror.Containers() {
		present[c.ID] = true
		if c.Used() > 0 || c.Phase == state.Gone {
			delete(w.emptySince, c.ID)
			continue
		}
		if _, known := w.emptySince[c.ID]; !known {
			w.emptySince[c.ID] = now
		}
	}
	maps.DeleteFunc(w.emptySince, func(id string, _ time.Time) bool { return !present[id] })
}

// file takes in a task as a listing that began then shows it. One that was told to stop since
// is not to be told again.
func (w *world) file(t state.Task, began time.Time) {
	if at, told := w.stoppedAt[t.ARN]; told && !at.Before(began) {
		t.DesiredStatus = "STOPPED"
	}
	w.tasks[t.ARN] = t
}

// stopped notes that a task was told to stop, ahead of the next listing.
func (w *world) stopped(arn string) {
	w.stoppedAt[arn] = w.cfg.machine.now()
	if t, ok := w.tasks[arn]; ok {
		t.DesiredStatus = "STOPPED"
		w.tasks[arn] = t
	}
}

// snapshot is what plan is made from. The maps are shared: they must not change until the
// plan is made.
func (w *world) snapshot() plan.Snapshot {
	m := w.cfg.Mirror
	tasks := make([]state.Task, 0, len(w.tasks))
	for _, arn := range slices.Sorted(maps.Keys(w.tasks)) {
		tasks = append(tasks, w.tasks[arn])
	}
	return plan.Snapshot{
		Now:          m.Now(),
		Sessions:     m.Sessions(),
		Containers:   m.Containers(),
		Launches:     m.Launches(),
		Documents:    w.documents,
		Edited:       w.edited,
		DocumentsAt:  w.documentsAt,
		Found:        w.sightings.found,
		Unseen:       w.sightings.unseen,
		Tasks:        tasks,
		TasksAt:      w.tasksAt,
		AbsentSince:  w.absentSince,
		EmptySince:   w.emptySince,
		RefusedSince: w.refusedSince,
		Replicas:     w.replicas,
		Testimonies:  w.testimonies,
		StoreAge:     m.Age(),
		StoreTrouble: m.Trouble(),
		StoreGap:     m.Gap(),
		Target:       w.cfg.Fleet.Target(),
		Filling:      m.Filling(),
		TasksSince:   w.tasksSince,
	}
}
