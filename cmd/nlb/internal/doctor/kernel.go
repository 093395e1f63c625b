package doctor

// What nlb needs of the kernel, and what became of what it put there.

import (
	"fmt"
	"slices"
	"strings"

	"nlb/cmd/nlb/internal/text"
	"nlb/lb"
)

func (e *exam) rights() {
	if e.Admin {
		e.add(OK, "", "CAP_NET_ADMIN", "", "")
		return
	}
	e.add(Fail, "", "nlb can neither read nor change nftables",
		"this process has no CAP_NET_ADMIN in this network namespace", "sudo "+strings.TrimSpace("nlb doctor "+strings.Join(e.Files, " ")))
}

func (e *exam) nftables() {
	if e.Broken != "" {
		e.add(Fail, "", "this kernel, Linux "+e.Kernel+", has no nftables", e.Broken, "modprobe nf_tables")
		return
	}
	for _, m := range e.Missing {
		kind := "the expression " + m.Name
		if strings.Contains(m.Name, " ") {
			kind = m.Name
		}
		level, uses := Fail, "these profiles need it"
		if len(e.Profiles) == 0 {
			level, uses = Warn, "profiles may need it"
		}
		mend := ""
		if m.Module != "" {
			mend = "modprobe " + m.Module
		}
		e.add(level, "", fmt.Sprintf("Linux %s lacks %s, for %s: %s", e.Kernel, kind, m.For, uses),
			fmt.Sprintf("it answers %q; needs Linux >= %s", m.Answer, m.Since), mend)
	}
	for p, s := range lb.Services(e.Profiles) {
		if module := "nf_nat_" + s.Helper.String(); slices.Contains(e.Reads, s.Helper.String()) {
			e.add(Fail, p.Name+"/"+s.Name, "what its connections announce is not translated",
				"helper: "+s.Helper.String()+" needs the kernel module "+module+", which is not loaded; to have it after a boot, too, write its name into /etc/modules-load.d/nlb.conf", "modprobe "+module)
		}
	}
	e.fineIf(len(e.Profiles) > 0, fmt.Sprintf("Linux %s has all of nftables that these profiles need", e.Kernel))
	e.fine(fmt.Sprintf("Linux %s has all of nftables that nlb uses", e.Kernel))
}

// rules compares nlb's table with what nlb made of it, and with the profiles.
func (e *exam) rules() {
	t, name := &e.Ours, "table inet "+e.Ask.Table
	apply := e.apply()
	if apply == "" {
		apply = "nlb apply PROFILE"
	}
	if t.Foreign != "" {
		e.add(Fail, "", name+" cannot be used", t.Foreign, "nlb --table OTHER apply PROFILE")
		return
	}
	if t.Dormant {
		e.add(Fail, "", name+" is turned off", "it has the flag dormant: its chains are not attached", "nft add table inet "+e.Ask.Table)
	}
	for _, d := range t.Drift {
		switch {
		case d.Foreign:
			e.add(Warn, "", fmt.Sprintf("%s, %s: it is not of nlb", name, d.Object),
				"nlb leaves it alone; what it does to this traffic is not looked at", "nft delete "+withTable(d.Object, e.Ask.Table))
		case t.Untouched:
			e.add(Warn, "", fmt.Sprintf("%s, %s: %s", name, d.Object, d.What), "another version of nlb made the table", apply)
		default:
			mend := apply
			if len(d.Handles) > 0 && e.applied() {
				mend = deleteRules(d, e.Ask.Table)
			}
			e.add(Fail, "", fmt.Sprintf("%s, %s: %s", name, d.Object, d.What), "something else has changed what nlb put there", mend)
		}
	}
	for _, taken := range t.Taken {
		e.add(Fail, "", "an apply would refuse: "+taken, "two services cannot listen on the same", "nlb show")
	}
	if len(t.Absent) > 0 {
		e.add(Warn, "", fmt.Sprintf("not in the kernel: %s", text.List(t.Absent)), "an apply puts it there", e.apply())
	}
	if n := len(t.Differs); n > 0 {
		more := ""
		if n > most {
			more = fmt.Sprintf("; %d more", n-most)
		}
		e.add(Warn, "", fmt.Sprintf("the kernel differs from the profiles in %s", text.Count(n, "object")),
			strings.Join(t.Differs[:min(n, most)], "; ")+more, e.apply())
	}
	if t.Repair && len(t.Drift) == 0 {
		e.add(Fail, "", name+" is not as nlb made it", "something else has changed it: an apply of the same profiles would change it back", e.apply())
	}
	switch {
	case !t.Exists && len(t.Absent) == 0:
		e.fine("nothing is balanced here yet: no " + name)
	case e.applied():
		e.fine(name + " is as nlb left it")
	default:
		e.fine(name + " is what the profiles say")
	}
}

// names finds backends that have no address.
func (e *exam) names() {
	for _, n := range e.Unresolved {
		e.add(Fail, "", "a backend has no address: "+n, "nlb apply refuses it until the name is known; nlb run begins without it", "")
	}
}

// deleteRules are the commands that take away what is not of nlb.
func deleteRules(d Drift, table string) string {
	var out []string
	for _, h := range d.Handles {
		out = append(out, fmt.Sprintf("nft delete rule %s handle %d", strings.TrimPrefix(withTable(d.Object, table), "chain "), h))
	}
	return strings.Join(out, " && ")
}

// withTable puts the table into the name of an object: chain inet nlb x.
func withTable(object, table string) string {
	kind, name, _ := strings.Cut(object, " ")
	return kind + " inet " + table + " " + name
}
