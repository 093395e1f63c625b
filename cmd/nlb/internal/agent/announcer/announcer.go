//go:build linux

// Package announcer gives the host the addresses that are to be announced, and keeps
// the file that keepalived tracks. It belongs to one goroutine.
package announcer

// What is announced, what is said of it, and the interfaces that have to be up for it: a
// balancer whose clients cannot reach it is none, however well its servers are.

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/engine/vip"
	"nlb/lb"
	"nlb/lb/announce"
)

// Announcer knows what is announced.
type Announcer struct {
	// Due has a value when the next address is to be announced.
	Due *time.Timer
	// Links has a value when an interface may have come up or gone down; see Follow.
	Links chan struct{}
	// Trouble is what of the addresses is not as it should be; empty: all is.
	Trouble string
	// Leaving: nothing is to be announced any more.
	Leaving bool

	table  string
	path   string // of the file
	log    *slog.Logger
	judge  announce.Judge
	held   map[netip.Addr]bool // nil: nobody has looked yet
	down   map[string]bool     // interfaces that are tracked: whether they are down
	others string              // addresses that somebody else has made
	fault  string              // what the file says; empty: nothing yet
	untold string              // why the file could not be written; empty: it could
}

// New is one for the agent of a table. file is the one for keepalived; empty: faultOf
// the socket.
func New(table, socket, file string, log *slog.Logger) *Announcer {
	due := time.NewTimer(0)
	due.Stop()
	return &Announcer{Due: due, Links: make(chan struct{}, 1), table: table, path: cmp.Or(file, faultOf(socket)), log: log}
}

// Held is how many addresses are announced.
func (r *Announcer) Held() int { return len(r.held) }

// Serves says whether a service of a profile has somebody of a family.
type Serves = func(*lb.Profile, *lb.Service, lb.Family) bool

// Update gives the host the addresses of profiles that are due, and takes the others
// away. Those that come wait until the table is current: until it has what is known of
// their servers. It reports whether something has changed.
func (r *Announcer) Update(profiles []*lb.Profile, serves Serves, current bool) (changed bool) {
	r.track(profiles)
	r.noteFault(profiles, serves)
	if r.table != engine.Announcing {
		return false
	}
	if r.held == nil {
		if err := r.look(); err != nil {
			return r.note(vip.Result{}, err)
		}
	}
	vips := announce.VIPs(profiles, serves)
	due, next := r.judge.Due(vips, func(addr netip.Addr) bool { return r.held[addr] }, time.Now())
	if r.Due.Stop(); !next.IsZero() {
		r.Due.Reset(max(0, time.Until(next)))
	}
	if len(r.held) == 0 && len(vips) == 0 && r.Trouble == "" {
		return false
	}
	var want []vip.VIP
	for _, v := range due {
		if r.held[v.Addr] || current {
			want = append(want, vip.VIP{Addr: v.Addr, Device: v.Interface})
		}
	}
	return r.note(vip.Set(want))
}

// look finds out what an agent of before has left.
func (r *Announcer) look() error {
	all, err := vip.List()
	if err != nil {
		return err
	}
	r.held = map[netip.Addr]bool{}
	for _, one := range all {
		if one.Ours {
			r.held[one.Addr] = true
		}
	}
	return nil
}

// note keeps and says what has become of the addresses. What is not as it should be is
// tried again with the next update.
func (r *Announcer) note(result vip.Result, err error) (changed bool) {
	for _, one := range result.Removed {
		delete(r.held, one.Addr)
		r.log.Warn("not announced any more", "address", one.Addr, "device", one.Device)
	}
	for _, one := range result.Added {
		r.held[one.Addr] = true
		r.log.Info("announced", "address", one.Addr, "device", one.Device)
	}
	if result.Instead && len(result.Added) > 0 {
		r.log.Warn("the kernel has no dummy devices, so lo has the addresses")
	}
	if others := fmt.Sprint(result.Others); len(result.Others) > 0 && others != r.others {
		r.others = others
		r.log.Warn("addresses to announce that somebody else has made stay, whoever is up", "addresses", others)
	}
	trouble := ""
	if err != nil {
		trouble = "The addresses to announce are not as they should be: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	changed = len(result.Added)+len(result.Removed) > 0 || trouble != r.Trouble
	if trouble != r.Trouble && err != nil {
		r.log.Error("the addresses to announce are not as they should be", "error", err)
	}
	r.Trouble = trouble
	return changed
}

// Leave has nothing announced any more, since the agent is told to end. It returns how
// long that is to stay, for what is under way.
func (r *Announcer) Leave(profiles []*lb.Profile) (stay time.Duration) {
	announced := len(r.held) > 0
	r.Leaving = true
	r.Update(profiles, func(*lb.Profile, *lb.Service, lb.Family) bool { return false }, true)
	if r.table == engine.Announcing { // a device is there also where nobody was up at the end
		if _, err := vip.Clear(); err != nil {
			r.log.Error("what was made to announce was not removed", "error", err)
		}
	}
	if !announced {
		return 0
	}
	for _, p := range profiles {
		if p.Announce != nil {
			stay = max(stay, p.Announce.Drain)
		}
	}
	r.log.Info("told to end; nothing is announced any more", "stays-for", stay)
	return stay
}

// faultOf is the file for keepalived, by the name of the agent's socket: fault for
// nlb.sock. It is in the unit's StateDirectory=, else beside the socket: systemd removes
// the folder of the socket when the unit ends, and keepalived does not notice that there is
// a new one (inotify(7), IN_DELETE_SELF).
func faultOf(socket string) string {
	dir := cmp.Or(os.Getenv("STATE_DIRECTORY"), filepath.Dir(socket))
	name := strings.TrimSuffix(filepath.Base(socket), ".sock")
	if name == engine.Announcing {
		return filepath.Join(dir, "fault")
	}
	return filepath.Join(dir, name+".fault")
}

// noteFault brings the file up to date: 0 while a service has somebody to serve.
// keepalived is told of a new file in the place of the old one. One that cannot be
// written is tried again with the next update.
func (r *Announcer) noteFault(profiles []*lb.Profile, serves Serves) {
	fault := "1\n"
	for p, s := range lb.Services(profiles) {
		if serves(p, s, lb.IPv4) || serves(p, s, lb.IPv6) {
			fault = "0\n"
			break
		}
	}
	if fault == r.fault {
		return
	}
	err := os.WriteFile(r.path+".new", []byte(fault), 0o644)
	if err == nil { // whatever the umask is: keepalived may be another user
		err = errors.Join(os.Chmod(r.path+".new", 0o644), os.Rename(r.path+".new", r.path))
	}
	if err == nil {
		r.fault, r.untold = fault, ""
	} else if err.Error() != r.untold {
		r.untold = err.Error()
		r.log.Error("keepalived is not told whether this host can serve", "error", err)
	}
}

// Follow has Links tell of changes until done is closed. What it misses is found by the
// next update.
func (r *Announcer) Follow(done <-chan struct{}) {
	updates := make(chan netlink.LinkUpdate)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		r.log.Warn("the kernel does not tell of interfaces", "error", err)
		return
	}
	go func() {
		for range updates {
			select {
			case r.Links <- struct{}{}:
			default: // it has a value
			}
		}
	}()
}

// Linked reports whether all interfaces that a profile tracks were up at the last update.
func (r *Announcer) Linked(p *lb.Profile) bool {
	return p.Announce == nil || !slices.ContainsFunc(p.Announce.Track, func(name string) bool { return r.down[name] })
}

// track looks at the interfaces that profiles track.
func (r *Announcer) track(profiles []*lb.Profile) {
	down := map[string]bool{}
	for _, p := range profiles {
		if p.Announce == nil {
			continue
		}
		for _, name := range p.Announce.Track {
			if _, known := down[name]; known {
				continue
			}
			down[name] = !isUp(name)
			switch was := r.down[name]; {
			case down[name] && !was:
				r.log.Warn("an interface that is tracked is down", "interface", name)
			case was && !down[name]:
				r.log.Info("an interface that is tracked is up again", "interface", name)
			}
		}
	}
	r.down = down
}

// isUp reports whether an interface is on, and has a carrier where it can know
// (netdevice(7), IFF_RUNNING).
func isUp(name string) bool {
	link, err := netlink.LinkByName(name)
	const flags = unix.IFF_UP | unix.IFF_RUNNING
	return err == nil && link.Attrs().RawFlags&flags == flags
}
