// Package ipvs turns the virtual services of IPVS into a profile.
package ipvs

// Syntax: the commands of ipvsadm(8), as `ipvsadm -S -n` prints them and as
// they stand in scripts.

import (
	"strings"

	"nlb/lb/importer"
	"nlb/lb/importer/shell"
)

// word is an argument of a command.
type word = shell.Word

// options are those of ipvsadm.
var options = shell.OptionsOf(`
	-A=--add-service/0 -E=--edit-service/0 -D=--delete-service/0 -a=--add-server/0 -e=--edit-server/0 -d=--delete-server/0
	-C=--clear/0 -R=--restore/0 -S=--save/0 -Z=--zero/0 -L=-l=--list/0 -h=--help/0 -n=--numeric=--exact/0 -o=--ops/0 -6=--ipv6/0
	-g=--gatewaying/0 -i=--ipip/0 -m=--masquerading/0 -t=--tcp-service -u=--udp-service --sctp-service -f=--fwmark-service
	-s=--scheduler -M=--netmask -r=--real-server -w=--weight -x=--u-threshold -y=--l-threshold -b=--sched-flags
	-p=--persistent/? --pe --tun-type --tun-port --tun-nocsum/0 --tun-csum/0 --tun-remcsum/0 --set/0 --start-daemon/0 --stop-daemon/0
`)

// command is one line of ipvsadm.
type command struct {
	verb  byte // one of AEDaedC; 0: nothing that we need
	place importer.Place
	given map[string]word // values of options, or the options themselves
	// transport is the option that says the service, whose value is service.
	transport string
	service   word
}

// parse reads the arguments of a command; false where there are mistakes.
func (t *table) parse(ws []word, place importer.Place) (*command, bool) {
	c, ok := &command{place: place, given: map[string]word{}}, true
	fail := func(at importer.Place, msg, want string) {
		t.Fail(at, msg, want)
		ok = false
	}
	for len(ws) > 0 {
		w := ws[0]
		ws = ws[1:]
		names, value, attached := split(w.Text)
		if len(names) == 0 {
			fail(w.Place, w.Text+" is no option", "an option of ipvsadm")
		}
		for i, name := range names {
			o, known := options.Find(name)
			v := w
			switch {
			case !known:
				fail(w.Place, "unknown option "+name, "an option of ipvsadm")
				continue
			case attached && o.Values != 0 && i == len(names)-1:
				v.Text = value
			case o.Values > 0 && len(ws) == 0:
				fail(w.Place, w.Text+" needs a value", "a value after it")
				continue
			case o.Values > 0 || o.Values < 0 && len(ws) > 0 && isNumber(ws[0].Text):
				v, ws = ws[0], ws[1:]
			case o.Values < 0:
				v.Text = "300" // IP_VS_TEMPLATE_TIMEOUT
			}
			switch o.Name {
			case "-A", "-E", "-D", "-a", "-e", "-d", "-C":
				if c.verb != 0 {
					fail(w.Place, "a second command", "one of -A, -E, -D, -a, -e, -d, -C")
				}
				c.verb = o.Name[1]
			case "-t", "-u", "--sctp-service", "-f":
				if c.transport != "" {
					fail(w.Place, "a second service", "one of -t, -u, --sctp-service, -f")
				}
				c.transport, c.service = o.Name, v
			case "--set", "--start-daemon", "--stop-daemon":
				return c, ok
			default:
				c.given[o.Name] = v
			}
		}
	}
	switch {
	case !ok:
	case c.verb != 0 && c.verb != 'C' && c.transport == "":
		fail(place, "the command has no service", "-t, -u, --sctp-service or -f")
	case strings.IndexByte("aed", c.verb) >= 0 && c.given["-r"].Text == "":
		fail(place, "the command has no server", "-r ADDRESS:PORT")
	}
	return c, ok
}

// split is a word as options, of which the last may have a value attached: --weight=5,
// and -aw5, which are -a and -w.
func split(text string) (names []string, value string, attached bool) {
	switch {
	case strings.HasPrefix(text, "--"):
		text, value, attached = strings.Cut(text, "=")
		return []string{text}, value, attached
	case strings.HasPrefix(text, "-"):
		for i := 1; i < len(text); i++ {
			names = append(names, "-"+text[i:i+1])
			if o, ok := options[names[i-1]]; !ok || o.Values > 0 && i+1 < len(text) {
				return names, text[i+1:], ok
			}
		}
	}
	return names, "", false
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
