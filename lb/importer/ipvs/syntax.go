// Package ipvs turns the virtual services of IPVS into a profile.
package ipvs

// Syntax: the commands of ipvsadm(8), as `ipvsadm -S -n` prints them and as
// they stand in scripts.

import (
	"strings"

	"nlb/lb"
	"nlb/lb/importer"
	"nlb/lb/importer/shell"
)

// word is an argument of a command.
type word = shell.Word

// options are those of ipvsadm by their letters; true: a value follows.
var options = map[string]bool{
	"A": false, "E": false, "D": false, "a": false, "e": false, "d": false, "C": false, "R": false, "S": false, "Z": false,
	"L": false, "l": false, "h": false, "n": false, "o": false, "6": false, "g": false, "i": false, "m": false,
	"t": true, "u": true, "f": true, "s": true, "M": true, "r": true, "w": true, "x": true, "y": true, "b": true,
	"p": false, // its value may be missing, and is looked for
}

// long are the long names of options.
var long = map[string]string{
	"add-service": "A", "edit-service": "E", "delete-service": "D", "add-server": "a", "edit-server": "e", "delete-server": "d",
	"clear": "C", "restore": "R", "save": "S", "zero": "Z", "list": "L", "help": "h", "numeric": "n", "ops": "o", "ipv6": "6",
	"gatewaying": "g", "ipip": "i", "masquerading": "m", "tcp-service": "t", "udp-service": "u", "sctp-service": "sctp",
	"fwmark-service": "f", "scheduler": "s", "netmask": "M", "real-server": "r", "weight": "w", "u-threshold": "x",
	"l-threshold": "y", "sched-flags": "b", "persistent": "p", "pe": "pe", "tun-type": "tun-type", "tun-port": "tun-port",
	"tun-nocsum": "tun-nocsum", "tun-csum": "tun-csum", "tun-remcsum": "tun-remcsum", "set": "set", "start-daemon": "start-daemon",
	"stop-daemon": "stop-daemon", "exact": "n",
}

// longValues are long options with values and without a letter.
var longValues = map[string]bool{"sctp": true, "pe": true, "tun-type": true, "tun-port": true}

// command is one line of ipvsadm.
type command struct {
	verb  byte // one of AEDaedC; 0: nothing that we need
	place importer.Place
	given map[string]word
	// transport is t, u, sctp or f.
	transport string
}

// parse reads the arguments of a command. Errors have no file.
func parse(ws []word, place importer.Place) (*command, []*lb.Error) {
	c := &command{place: place, given: map[string]word{}}
	var errs []*lb.Error
	fail := func(w word, msg, want string) {
		errs = append(errs, &lb.Error{Pos: lb.Pos{Line: w.Place.Line, Column: w.Place.Column}, Width: w.Place.Width, Msg: msg, Want: want})
	}
	for len(ws) > 0 {
		w := ws[0]
		ws = ws[1:]
		var letters []string
		value, attached := "", false
		switch {
		case strings.HasPrefix(w.Text, "--"):
			name := w.Text[2:]
			name, value, attached = strings.Cut(name, "=")
			letter, ok := find(name)
			if !ok {
				fail(w, "unknown option --"+name, "an option of ipvsadm")
				continue
			}
			letters = []string{letter}
		case strings.HasPrefix(w.Text, "-") && len(w.Text) > 1:
			for i := 1; i < len(w.Text); i++ {
				letter := w.Text[i : i+1]
				takes, ok := options[letter]
				if !ok {
					fail(w, "unknown option -"+letter, "an option of ipvsadm")
					break
				}
				letters = append(letters, letter)
				if takes && i+1 < len(w.Text) {
					value, attached = w.Text[i+1:], true
					break
				}
			}
		default:
			fail(w, w.Text+" is no option", "an option of ipvsadm")
			continue
		}
		for i, letter := range letters {
			v := w
			takes := options[letter] || longValues[letter]
			optional := letter == "p" && len(ws) > 0 && isNumber(ws[0].Text)
			switch {
			case takes && attached && i == len(letters)-1 || letter == "p" && attached:
				v.Text = value
			case takes && len(ws) == 0:
				fail(w, w.Text+" needs a value", "a value after it")
				continue
			case takes || optional:
				v, ws = ws[0], ws[1:]
			case letter == "p":
				v.Text = "300" // IP_VS_TEMPLATE_TIMEOUT
			}
			switch letter {
			case "A", "E", "D", "a", "e", "d", "C":
				if c.verb != 0 {
					fail(w, "a second command", "one of -A, -E, -D, -a, -e, -d, -C")
				}
				c.verb = letter[0]
			case "t", "u", "sctp", "f":
				if c.transport != "" {
					fail(w, "a second service", "one of -t, -u, --sctp-service, -f")
				}
				c.transport = letter
				c.given["service"] = v
			case "set", "start-daemon", "stop-daemon":
				return c, errs
			default:
				c.given[letter] = v
			}
		}
	}
	switch {
	case len(errs) > 0:
	case c.verb != 0 && c.verb != 'C' && c.transport == "":
		fail(word{Place: place}, "the command has no service", "-t, -u, --sctp-service or -f")
	case strings.IndexByte("aed", c.verb) >= 0 && c.verb != 0 && c.given["r"].Text == "":
		fail(word{Place: place}, "the command has no server", "-r ADDRESS:PORT")
	}
	return c, errs
}

// find returns the option of a long name, or the only one that begins so.
func find(name string) (string, bool) {
	if letter, ok := long[name]; ok {
		return letter, true
	}
	found := map[string]bool{}
	letter := ""
	for full, l := range long {
		if strings.HasPrefix(full, name) && name != "" {
			found[l] = true
			letter = l
		}
	}
	return letter, len(found) == 1
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
