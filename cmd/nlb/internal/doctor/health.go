package doctor

// Health: what checks have found of backends, and who makes them.

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"nlb/lb"
)

// Agent is nlb run, for this table and network namespace. The zero Agent is none.
type Agent struct {
	Running bool
	// Profiles are those that it keeps.
	Profiles []string
	// AllowExec says that it runs commands, and Groups are those of its process.
	AllowExec bool
	Groups    []int
	// Trouble is how it is, where it keeps what it read before, or cannot change the
	// kernel; empty: all is well.
	Trouble string
}

// Fallen is a backend that checks have found down, as the table knows.
type Fallen struct {
	Profile, Service, Backend string
	Since                     time.Time
	Reason                    string
	// Open says that it has connections all the same, since too few are up.
	Open bool
}

const pingGroups = "net/ipv4/ping_group_range"

// dynamic are the groups that systemd picks one of for the unit, as it has
// DynamicUser= (https://systemd.io/UIDS-GIDS).
var dynamic = [2]int{61184, 65519}

func (e *exam) health() {
	kept := e.Agent.Running
	for _, p := range e.Profiles {
		kept = kept && slices.Contains(e.Agent.Profiles, p.Name)
		for _, f := range e.Ours.Fallen {
			if f.Profile == p.Name {
				e.fallen(f)
			}
		}
	}
	e.refusals()
	if e.Agent.Trouble != "" {
		e.add(Warn, "", "nlb run is not as it should be", e.Agent.Trouble, "")
	}
	some := len(e.Ours.Fallen) > 0
	for p, s := range lb.Services(e.Profiles) {
		for i := range s.Health {
			some = true
			e.ability(p.Name+"/"+s.Name, s.Health[i].Kind)
		}
	}
	switch {
	case !some:
	case kept:
		e.fine("nlb run checks the backends")
	default:
		e.fine("no backend is held down; nothing is checked, as no nlb run keeps these profiles")
	}
}

// fallen looks at one backend that is down.
func (e *exam) fallen(f Fallen) {
	service := f.Profile + "/" + f.Service
	if f.Open {
		e.add(Warn, service, "too few backends are up: those that are down get connections, too", "its fail-open says so; nlb show says why they are down", "")
	}
	if slices.Contains(e.Agent.Profiles, f.Profile) || f.Open || e.Blind[e.check] {
		return
	}
	mend := e.apply("--forget-health")
	if mend == "" {
		mend = "systemctl start nlb-agent"
	}
	e.add(Warn, service+" "+f.Backend, "it is held down by health, and nobody checks it",
		fmt.Sprintf("found at %s: %s; no nlb run keeps its profile", f.Since.Local().Format("2006-01-02 15:04:05"), f.Reason), mend)
}

// refusals finds services that have servers, none of which takes connections.
func (e *exam) refusals() {
	for p, s := range lb.Services(e.Ours.Held) {
		if !slices.ContainsFunc(e.Profiles, func(asked *lb.Profile) bool { return asked.Name == p.Name }) {
			continue
		}
		for _, f := range s.Families() {
			servers := slices.DeleteFunc(slices.Clone(s.Of(f)), func(b lb.Backend) bool { return b.Weight == 0 })
			if len(servers) == 0 || slices.ContainsFunc(servers, func(b lb.Backend) bool { return b.Effective() > 0 }) {
				continue
			}
			var why, mends []string
			for _, b := range servers[:min(len(servers), most)] {
				switch {
				case b.Standing.Order != lb.NoOrder:
					why = append(why, fmt.Sprintf("%s is %s by order", b.Name, map[lb.Order]string{lb.OrderDrain: "drained", lb.OrderDisable: "disabled"}[b.Standing.Order]))
					mends = append(mends, strings.Join(slices.Concat([]string{"nlb enable"}, e.tableFlag(), []string{p.Name + "/" + s.Name + "/" + b.Name}), " "))
				case b.Standing.Verdict == lb.VerdictDown:
					why = append(why, b.Name+" is down: "+b.Standing.Reason)
				default:
					why = append(why, b.Name+" is "+b.State.String())
				}
			}
			does := map[lb.OnEmpty]string{lb.Reject: "refused", lb.Drop: "dropped"}[s.OnEmpty]
			e.add(Fail, p.Name+"/"+s.Name, fmt.Sprintf("no backend takes %s connections: they are %s", f, does), strings.Join(why, "; "), strings.Join(mends, " && "))
		}
	}
}

// ability says that checks of a kind cannot be made here.
func (e *exam) ability(service string, kind lb.CheckKind) {
	switch {
	case kind == lb.CheckExec && e.Agent.Running && !e.Agent.AllowExec:
		e.add(Fail, service, "its checks run commands, and nlb run refuses that", "it was started without --allow-exec", "")
	case kind == lb.CheckICMP && !e.mayPing():
		e.add(Warn, service, "its backends cannot be pinged", dotted(pingGroups)+" is "+strings.Join(strings.Fields(e.Params[pingGroups]), " ")+", which leaves out the group of nlb run",
			"sysctl -w "+dotted(pingGroups)+`="0 2147483647"`)
	}
}

// mayPing reports whether an agent may open ping sockets (icmp(7)): one that runs,
// or the unit's.
func (e *exam) mayPing() bool {
	first, last, ok := strings.Cut(strings.Join(strings.Fields(e.Params[pingGroups]), " "), " ")
	low, err := strconv.Atoi(first)
	high, err2 := strconv.Atoi(last)
	if !ok || err != nil || err2 != nil {
		return true // not known
	}
	if e.Agent.Running {
		return slices.ContainsFunc(e.Agent.Groups, func(g int) bool { return low <= g && g <= high })
	}
	return low <= dynamic[0] && dynamic[1] <= high
}
