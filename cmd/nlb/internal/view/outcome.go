package view

// What an apply or a flush did beside what it was asked for.

import (
	"slices"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

// Held counts backends that get no new connections because of what the table knows
// of them.
type Held struct {
	Down      int       `json:"down"`      // found down by checks
	Ordered   int       `json:"ordered"`   // drained or disabled by an admin
	Forgotten int       `json:"forgotten"` // found down, and let in all the same
	Newest    time.Time `json:"newest,omitzero"`
}

// NoteHealth says who is held down, or let in or would be. unchecked: the profiles have
// checks that nobody makes. flag is what forgets verdicts.
func (c *Console) NoteHealth(h Held, unchecked bool, flag string, dryRun bool) {
	are := func(n int) string {
		return text.Count(n, "backend") + map[bool]string{true: " is", false: " are"}[n == 1]
	}
	switch {
	case h.Down > 0 && unchecked:
		c.Notef("%s held down by health, and nobody checks: the last verdict is of %s; %s lets %s in",
			are(h.Down), clock(h.Newest, time.Now(), "15:04"), flag, Them(h.Down))
	case unchecked:
		c.Notef("health needs nlb run; nothing is checked")
	}
	if h.Forgotten > 0 {
		c.Notef("%s %s in that health held down", map[bool]string{true: "would let", false: "let"}[dryRun], text.Count(h.Forgotten, "backend"))
	}
	if h.Ordered > 0 {
		c.Notef("%s drained or disabled by order; nlb enable lets %s in", are(h.Ordered), Them(h.Ordered))
	}
}

// NoteUnfollowed says that profiles have shares that follow live connections, and
// nobody counts these.
func (c *Console) NoteUnfollowed(profiles []*lb.Profile) {
	for _, s := range lb.Services(profiles) {
		if s.Scheduler.Follows() {
			c.Notef("%s needs nlb run; without it, it is %s", s.Scheduler, lb.RoundRobin)
			return
		}
	}
}

// NoteUnannounced says that profiles want addresses announced, and nobody does it.
func (c *Console) NoteUnannounced(profiles []*lb.Profile) {
	if slices.ContainsFunc(profiles, func(p *lb.Profile) bool { return p.Announce != nil }) {
		c.Notef("nothing is announced: that needs nlb run")
	}
}

// NoteFleet says what is other than it would be on one balancer, of each kind the first
// service.
func (c *Console) NoteFleet(profiles []*lb.Profile) {
	said := map[string]bool{}
	note := func(is bool, service, what string) {
		if is && !said[what] {
			said[what] = true
			c.Notef("%s is of a fleet: %s", service, what)
		}
	}
	for p, s := range lb.Services(profiles) {
		name := p.Name + "/" + s.Name
		all := s.Fleet == lb.FleetAnycast || s.Fleet == lb.FleetMesh
		note(all && s.Limit != lb.Limit{}, name, "each balancer counts its limits for itself")
		note(s.Fleet == lb.FleetPair && (s.Affinity != nil || s.Limit != lb.Limit{}), name, "affinity and rates begin anew on the other balancer")
		note(s.Fleet == lb.FleetAnycast && s.Scheduler == lb.Hash, name, "with scheduler: consistent fewer clients move when backends change")
	}
}

// NoteParameters says which kernel parameters were set, or would be.
func (c *Console) NoteParameters(parameters []Parameter, dryRun bool) {
	switch {
	case len(parameters) == 0:
	case dryRun:
		c.Notef("would set %s", Assignments(parameters, "is"))
	default:
		c.Notef("set %s; nlb flush --sysctl puts %s back", Assignments(parameters, "was"), Them(len(parameters)))
	}
}

// NoteEnded says that flows of removed backends, or unanswered ones of drained
// backends, were ended.
func (c *Console) NoteEnded(n int) {
	if n > 0 {
		c.Notef("ended %s of removed or drained backends", text.Count(n, "flow"))
	}
}

// NotePruned names the profiles that changes remove and that are not among those
// applied.
func (c *Console) NotePruned(changes []lb.Change, profiles []*lb.Profile, dryRun bool) {
	var gone []string
	for _, one := range changes {
		name, _, _ := strings.Cut(one.Service, "/")
		stays := slices.ContainsFunc(profiles, func(p *lb.Profile) bool { return p.Name == name })
		if !stays && !slices.Contains(gone, name) {
			gone = append(gone, name)
		}
	}
	switch {
	case len(gone) == 0:
	case dryRun:
		c.Notef("would prune %s", strings.Join(gone, ", "))
	default:
		c.Notef("pruned %s", strings.Join(gone, ", "))
	}
}

// clock is a moment as a clock here shows it, with the day where that is not today.
func clock(at, now time.Time, layout string) string {
	at, now = at.Local(), now.Local()
	if at.Format(time.DateOnly) != now.Format(time.DateOnly) {
		layout = time.DateOnly + " " + layout
	}
	return at.Format(layout)
}
