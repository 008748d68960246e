package state

import (
	"context"
	"encoding/json"
	"time"
)

// Store is every role at once: what an implementation provides and what cmd wires. Consumers
// ask for the narrowest role that serves them.
//
// Every method that changes control records is one atomic step: it checks the authority that
// it is given, the phase that it starts from and the records that it touches together, stamps
// what it writes with a new revision, leaves a hint for the other replicas, and returns the
// record as it now is. A refused write changes nothing. All methods may be repeated.
// Times are the store's own clock, never the caller's.
//
// Any method may return ErrUnavailable (wrapped) when the store cannot be reached, and
// ErrRolledBack when it is older than what this process has seen.
type Store interface {
	Documents
	Sessions
	Containers
	Launches
	Lease
	Source
	Pools
	Shown
	V1Notes
	Events
	Ownership
	Replicas
	Witnesses
	Dialects
	Rebuilder
	// Ping tells whether the store answers.
	Ping(ctx context.Context) error
	// Close lets go of connections. It ends no session.
	Close() error
}

// Authority says on whose behalf a write is made. A leader's write carries its epoch, a link
// owner's the container and its ownerSeq; the store answers ErrFenced once that has passed on.
// Exactly one of the two is set.
type Authority struct {
	Epoch     int64  // the leader's
	Container string // the link owner's
	OwnerSeq  int64  // the link owner's
}

// Documents reads and writes the requesters' half: session:{id}, strings of JSON with a TTL.
type Documents interface {
	// Document reads one document. A missing or unreadable one is not an error: see the
	// fields Missing and Err.
	Document(ctx context.Context, id string) (Document, error)
	// DocumentsOf reads many; the answer is in the order of ids.
	DocumentsOf(ctx context.Context, ids []string) ([]Document, error)
	// DocumentIDs lists the ids of all documents, each at least once. It is complete or an error.
	DocumentIDs(ctx context.Context) ([]string, error)
	// CreateDocument writes a document that must not exist (ErrExists) and hints at it.
	CreateDocument(ctx context.Context, id string, text []byte, ttl time.Duration) error
	// EditDocument replaces the text by what edit makes of it, only if nobody changed it in
	// between (it reads and tries again a few times, then ErrConflict). The TTL stays unless
	// ttl is positive. An edit that returns nil leaves the document alone, without error.
	// ErrNotFound if there is none.
	EditDocument(ctx context.Context, id string, ttl time.Duration, edit func(text []byte) ([]byte, error)) error
}

// Sessions moves sessions along. docs/state.md has the table of transitions; each method
// names the row that it is. ErrNotFound if there is no such session, ErrConflict if it is
// not in the phase that the row starts from.
type Sessions interface {
	// Session reads one session, ended ones included for as long as they are kept.
	Session(ctx context.Context, id string) (*Session, error)
	// Admit makes a pending session of a document (none → pending; leader). An id that is
	// known already, ended included, is ErrExists.
	Admit(ctx context.Context, by Authority, a Admission) (*Session, error)
	// Bind gives a pending session a slot (pending → bound; leader). The container must be
	// ready, in the life that is named, and have room (ErrFull); with Dedicated, it must have
	// served no other user. Counts the attempt and sets BindRev.
	Bind(ctx context.Context, by Authority, b Binding) (*Session, error)
	// Unbind takes a bound session back before its first ready (bound → pending; leader). The
	// container is excluded. Its slot stays taken until its owner confirms (Release), unless
	// the container is gone or has refused the session.
	Unbind(ctx context.Context, by Authority, u Unbinding) (*Session, error)
	// Ready tells that the browser is there (bound → ready; owner). ErrConflict under another
	// BindRev. Repeated, it changes nothing; first tells whether this very call made it ready,
	// which is true once in a session's life.
	Ready(ctx context.Context, by Authority, id string, bindRev int64, cold bool) (s *Session, first bool, err error)
	// Refuse records that the container cannot serve the session (stays bound, Refused set,
	// slot freed; owner). The leader decides what follows.
	Refuse(ctx context.Context, by Authority, id string, bindRev int64, why string) (*Session, error)
	// End starts or finishes an end (leader or owner):
	//   pending                         → ended
	//   bound, ready                    → ending, or ended if e.Confirmed
	//   ending                          → ended if e.Confirmed, keeping the first reason; else ErrConflict
	// e.Confirmed says that no container holds the session any more; it frees the slot.
	// ErrConflict if a leader takes a deadline for passed that is not, by the store's clock: it was
	// amended since. The same if it gives up as failed what has become ready meanwhile, or, naming
	// no binding, what has been bound.
	// An owner may end only what is bound to its container under e.BindRev.
	End(ctx context.Context, by Authority, e End) (*Session, error)
	// Release frees a slot that a session holds in by.Container although it is bound
	// elsewhere, pending or ended (owner, once the container has confirmed; or leader with
	// container named, once that is gone). Repeated, it changes nothing.
	Release(ctx context.Context, by Authority, container, id string) error
	// Touch records what an owner's container reports of its clients. Entries for sessions
	// not bound to that container under that BindRev are skipped. It leaves no hint.
	Touch(ctx context.Context, by Authority, activities []Activity) error
	// Amend changes what a requester may change after admission: the deadline, keepAlive, and
	// with them the spec text. Leader only; live sessions only.
	Amend(ctx context.Context, by Authority, a Amendment) (*Session, error)
	// Wait adds to the time that pending sessions have waited under a held lease (leader). It
	// leaves no hint.
	Wait(ctx context.Context, by Authority, ids []string, more time.Duration) error
}

// Admission is what a session starts from.
type Admission struct {
	ID        string
	Spec      json.RawMessage
	Origin    Origin
	UserID    string
	KeepAlive bool
	Remaining time.Duration // until its deadline
}

// Binding gives a session to one life of a container.
type Binding struct {
	Session   string
	Container string
	BootID    string
	Dedicated bool
}

// Unbinding takes a bound session back.
type Unbinding struct {
	Session string
	BindRev int64
	Why     string
}

// End is the end of a session, begun or confirmed.
type End struct {
	Session   string
	BindRev   int64 // owner: must be the session's; leader: zero, or must be the session's
	Reason    Reason
	Message   string
	Confirmed bool
}

// Activity is what a container knows of one session's clients.
type Activity struct {
	Session      string
	BindRev      int64
	Attached     int
	Connected    bool          // somebody has been connected, ever
	IdleFor      time.Duration // since bytes last moved
	GraceLeft    time.Duration // until it ends for want of a client; zero: not running
	GraceRunning bool
}

// Amendment changes a live session.
type Amendment struct {
	Session   string
	Spec      json.RawMessage
	KeepAlive bool
	Remaining time.Duration // until its deadline
}

// Containers keeps the registry. ErrNotFound if there is no such container.
type Containers interface {
	// Container reads one container.
	Container(ctx context.Context, id string) (*Container, error)
	// Register records a container's registration at replica r.Owner, which becomes its owner
	// (ownerSeq + 1). The same BootID again only moves the link. Another BootID is another
	// life: it starts over in pending_verification; sessions bound to the old life stay bound
	// to that for the leader to end. ErrConflict if the container is stopping or gone, or is new
	// and its launch has expired: its task is being stopped; and if it has left that life for
	// another (Container.Former): the registration was late on its way.
	Register(ctx context.Context, r Registration) (*Container, error)
	// Report records a container's report and renews its owner's lease. A container that is
	// pending_verification becomes ready if report.Addr is set. ErrConflict under another
	// BootID. A punctual report that tells nothing new but health leaves no hint: relists
	// carry it.
	Report(ctx context.Context, by Authority, report Report) (*Container, error)
	// Disown gives up the ownership of a link (ownerUntil = now).
	Disown(ctx context.Context, by Authority) error
	// Drain closes binding (ready → draining, drainSeq + 1; leader, or owner when the container
	// itself asks, which also sets Closing). On a draining container it changes nothing else.
	Drain(ctx context.Context, by Authority, id, bootID string) (*Container, error)
	// Undrain opens it again (draining → ready; leader). ErrConflict if it is Closing.
	Undrain(ctx context.Context, by Authority, id, bootID string) (*Container, error)
	// BeginStop is the point of no return (draining → stopping; leader): drainAck must equal
	// drainSeq and no slot may be taken, else ErrConflict. A container that is
	// pending_verification, to which nothing was ever bound, may go there directly.
	BeginStop(ctx context.Context, by Authority, id, bootID string) (*Container, error)
	// GiveUp is the point of no return of a container that hangs (ready, draining → stopping;
	// leader), whatever it holds: its slots are freed, its sessions are for the leader to end.
	// ErrConflict if it has been heard since g.SeenAt, or was judged too long ago: it may have woken up where
	// nobody could write that. Repeated, it changes nothing.
	GiveUp(ctx context.Context, by Authority, g GivingUp) (*Container, error)
	// MarkGone records that the container is no more (any → gone; leader). Its slots are freed;
	// its sessions are for the leader to end.
	MarkGone(ctx context.Context, by Authority, id, bootID string) (*Container, error)
}

// GivingUp names one life of a container that hangs, and when it was last heard.
type GivingUp struct {
	Container string
	BootID    string
	SeenAt    time.Time
	JudgedAt  time.Time // by the store's clock, when it was found to hang; good for JudgedFor
}

// JudgedFor is for how long it stands that a container hangs: nobody who stood still right before giving
// it up, and then goes on, gives up one that has answered others meanwhile.
const JudgedFor = 10 * time.Second

// Registration is one registration, after its token was found good.
type Registration struct {
	ID          string
	Launch      string
	BootID      string
	Protocol    int
	MaxSessions int
	Claimed     Claim
	Owner       string  // replica id
	Dialect     Dialect // which containers the pool takes: a new life of another version is ErrDialect
}

// OwnerLease is how long an owner's claim on a link lasts after a report.
const OwnerLease = 15 * time.Second

// Report is one report of a container through its link.
type Report struct {
	BootID   string
	Addr     string // verified address; empty leaves the record's
	TaskARN  string // verified ARN; empty leaves the record's
	DrainAck int64
	Health   Health
}

// Launches keeps the intents to start tasks. All but Launch are the leader's.
type Launches interface {
	// Launch reads one launch.
	Launch(ctx context.Context, id string) (*Launch, error)
	// CreateLaunch stores a new launch (ErrExists). CreatedAt is set by the store.
	CreateLaunch(ctx context.Context, by Authority, l Launch) (*Launch, error)
	// UpdateLaunch records how it went: task ARN, outcome, cause, message, tries, times. ErrConflict if the
	// stored outcome is no longer open and u.Outcome differs (Refused may become Expired), or if that is
	// to be Expired while the container of the launch is there, neither stopping nor gone.
	UpdateLaunch(ctx context.Context, by Authority, id string, u LaunchUpdate) (*Launch, error)
	// ForgetLaunch removes a launch. Repeated, it changes nothing. Mirrors take the absence of one
	// younger than LaunchKept for a loss.
	ForgetLaunch(ctx context.Context, by Authority, id string) error
}

// LaunchUpdate says how a launch went. Empty fields leave the record's.
type LaunchUpdate struct {
	TaskARN    string
	Outcome    Outcome
	Message    string
	Tries      int
	Cause      Cause
	AnsweredAt time.Time
	SettledAt  time.Time
}

// Lease elects the leader. It saves work; correctness rests on epochs and atomic writes.
type Lease interface {
	// AcquireLease takes or renews the leadership for replica. It returns the epoch and the
	// time that the lease lasts from the moment the call was *sent*. ErrConflict while another
	// replica holds it. A new holder gets an epoch higher than any before, also than had, the
	// highest that replica has ever been given (0: none): the store may have gone back to an
	// earlier lease of replica's, which is not renewed then, or its clock may have.
	AcquireLease(ctx context.Context, replica string, had int64) (epoch int64, ttl time.Duration, err error)
	// ReleaseLease gives it up at once, and hints at it (KindLease). Not the holder: no error.
	ReleaseLease(ctx context.Context, replica string, epoch int64) error
}

// Kind names the kind of record that a hint or an index speaks of.
type Kind string

// The kinds.
const (
	KindDocument  Kind = "document"
	KindSession   Kind = "session"
	KindContainer Kind = "container"
	KindLaunch    Kind = "launch"
	KindFleet     Kind = "fleet" // look at the tasks; ID is a task ARN or empty
	KindPool      Kind = "pool"  // look at pool:desired; ID is empty
	KindLease     Kind = "lease" // the leadership is free
	KindAll       Kind = "all"   // something was missed: look at everything
)

// Hint says "look again at this record". It carries no news of its own, may be lost,
// repeated or out of order. Rev, if not zero, is the revision to be seen there.
type Hint struct {
	Kind Kind
	ID   string
	Rev  int64
}

// Index is what a relist reads first: the revision of every record that is there.
type Index struct {
	Sessions   map[string]int64
	Containers map[string]int64
	Launches   map[string]int64
	Filling
	Seq int64 // the store's own revision clock
	// GivenBack is the highest Records.Knew of all that was given back to this store: up to that
	// revision nobody else remembers anything of it that would not be over.
	GivenBack int64

	Seen int64     // the highest revision that this process had seen of it before it asked
	Time time.Time // the store's wall clock
}

// Source is what a Mirror reads.
type Source interface {
	// Restore is Rebuilder's.
	Restore(ctx context.Context, seen int64, r Records) error
	// Index lists the control records. Ended sessions stay in it for 5 minutes. A process that
	// has seen more of the store than is there stays refused (ErrRolledBack) until somebody
	// has restored it.
	Index(ctx context.Context) (Index, error)
	// SessionsOf, ContainersOf and LaunchesOf read many; the answer holds those that exist,
	// in any order.
	SessionsOf(ctx context.Context, ids []string) ([]*Session, error)
	ContainersOf(ctx context.Context, ids []string) ([]*Container, error)
	LaunchesOf(ctx context.Context, ids []string) ([]*Launch, error)
	// Watch calls see for every hint until ctx ends, in its own goroutine, one call at a time.
	// It reconnects by itself; after a gap it gives KindAll. documents tells whether changes
	// that others make to documents are hinted at too (keyspace notifications); it is called
	// whenever that becomes known or changes.
	Watch(ctx context.Context, see func([]Hint), documents func(notified bool)) error
	// Wake leaves hints for every replica.
	Wake(ctx context.Context, hints ...Hint) error
}
