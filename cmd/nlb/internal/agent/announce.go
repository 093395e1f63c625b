//go:build linux

package agent

// Announce: the addresses that this host has while somebody is there to serve, and the
// file that tells keepalived so.

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/engine"
	"nlb/cmd/nlb/internal/engine/vip"
	"nlb/lb"
	"nlb/lb/announce"
)

// announcer knows what is announced.
type announcer struct {
	judge   announce.Judge
	held    map[netip.Addr]bool // nil: nobody has looked yet
	due     *time.Timer         // when the next one is to be announced
	leaving bool                // nothing is to be announced any more
	trouble string              // what of the addresses is not as it should be
	others  string              // addresses that somebody else has made
	fault   string              // what the file says; empty: nothing yet
}

func newAnnouncer() announcer {
	due := time.NewTimer(0)
	due.Stop()
	return announcer{due: due}
}

// serves reports whether a service has somebody to serve, by what the checks have
// found. An agent that is told to end has nobody.
func (a *agent) serves(p *lb.Profile, s *lb.Service, f lb.Family) bool {
	return !a.announcer.leaving && announce.Serves(a.roster.Judged(p, s), f)
}

// announce gives the host the addresses that are due, and takes the others away. One
// that comes waits until the table has what is known of its servers.
func (a *agent) announce() {
	if !a.applied {
		return
	}
	a.noteFault()
	if a.Table != engine.Announcing {
		return
	}
	r := &a.announcer
	vips := announce.VIPs(a.wanted, a.serves)
	if r.held != nil && len(r.held) == 0 && len(vips) == 0 {
		return
	}
	if r.held == nil {
		if err := r.look(); err != nil {
			a.unannounced(err)
			return
		}
	}
	due, next := r.judge.Due(vips, func(addr netip.Addr) bool { return r.held[addr] }, time.Now())
	if r.due.Stop(); !next.IsZero() {
		r.due.Reset(max(0, time.Until(next)))
	}
	var want []vip.VIP
	current := !a.updating && !a.roster.HasChanged() && a.retry.IsZero()
	for _, v := range due {
		if r.held[v.Addr] || current {
			want = append(want, vip.VIP{Addr: v.Addr, Device: v.Interface})
		}
	}
	result, err := vip.Set(want)
	r.note(result)
	for _, one := range result.Removed {
		a.Log.Warn("not announced any more", "address", one.Addr, "device", one.Device)
	}
	for _, one := range result.Added {
		a.Log.Info("announced", "address", one.Addr, "device", one.Device)
	}
	if result.Instead && len(result.Added) > 0 {
		a.Log.Warn("the kernel has no dummy devices, so lo has the addresses")
	}
	if others := fmt.Sprint(result.Others); len(result.Others) > 0 && others != r.others {
		r.others = others
		a.Log.Warn("addresses to announce that somebody else has made stay, whoever is up", "addresses", others)
	}
	a.unannounced(err)
	a.unsaid = a.unsaid || len(result.Added)+len(result.Removed) > 0
}

// look finds out what an agent of before has left.
func (r *announcer) look() error {
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

// note keeps what has become of the addresses.
func (r *announcer) note(result vip.Result) {
	for _, one := range result.Removed {
		delete(r.held, one.Addr)
	}
	for _, one := range result.Added {
		r.held[one.Addr] = true
	}
}

// unannounced says what of the addresses is not as it should be; nil: all is. It is
// tried again with the next look of the guard.
func (a *agent) unannounced(err error) {
	trouble := ""
	if err != nil {
		trouble = "The addresses to announce are not as they should be: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	if trouble != a.announcer.trouble {
		if a.announcer.trouble = trouble; err != nil {
			a.Log.Error("the addresses to announce are not as they should be", "error", err)
		}
		a.tellStatus()
	}
}

// leave has nothing announced any more, since the agent is told to end. It returns how
// long that is to stay, for what is under way.
func (a *agent) leave() (stay time.Duration) {
	r := &a.announcer
	r.leaving = true
	announced := len(r.held) > 0
	if a.announce(); !announced {
		return 0
	}
	for _, p := range a.wanted {
		if p.Announce != nil {
			stay = max(stay, p.Announce.Drain)
		}
	}
	a.Log.Info("told to end; nothing is announced any more", "stays-for", stay)
	if _, err := vip.Clear(); err != nil {
		a.Log.Error("what was made to announce was not removed", "error", err)
	}
	return stay
}

// FaultOf is the file for keepalived beside a socket: /run/nlb/fault of the table nlb.
func FaultOf(socket string) string {
	name := strings.TrimSuffix(filepath.Base(socket), ".sock")
	if name == "nlb" {
		return filepath.Join(filepath.Dir(socket), "fault")
	}
	return filepath.Join(filepath.Dir(socket), name+".fault")
}

// noteFault brings the file up to date: 0 while a service has somebody to serve.
// keepalived is told of a new file in the place of the old one.
func (a *agent) noteFault() {
	fault := "1\n"
	for p, s := range lb.Services(a.wanted) {
		if a.serves(p, s, lb.IPv4) || a.serves(p, s, lb.IPv6) {
			fault = "0\n"
			break
		}
	}
	if fault == a.announcer.fault {
		return
	}
	path := cmp.Or(a.Fault, FaultOf(a.Socket))
	err := os.WriteFile(path+".new", []byte(fault), 0o644)
	if err == nil { // whatever the umask is: keepalived may be another user
		err = errors.Join(os.Chmod(path+".new", 0o644), os.Rename(path+".new", path))
	}
	if err != nil {
		a.Log.Error("keepalived is not told whether this host can serve", "error", err)
	}
	a.announcer.fault = fault
}
