package ipvs

// Listings: what ipvsadm -Ln prints.

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"nlb/lb/importer"
)

// listing is the heading that ipvsadm -L prints.
var listing = regexp.MustCompile(`^\s*(Prot LocalAddress:Port|-> RemoteAddress:Port)`)

// row reads a row of a listing (from 0). Its services and servers become the
// commands that would have made them.
func (t *table) row(line int) {
	f := strings.Fields(t.Lines[line])
	place := importer.PlaceOf(t.Lines, line)
	place.Width = 0
	var args []string
	switch {
	case len(f) > 0 && f[0] == "Prot":
		t.services, t.listed = nil, nil // each listing has all
		return
	case len(f) >= 3 && slices.Contains([]string{"TCP", "UDP", "SCTP", "FWM"}, f[0]):
		option := map[string]string{"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service", "FWM": "-f"}[f[0]]
		args = append([]string{"-A", option}, f[1])
		rest := f[2:]
		if f[0] == "FWM" && rest[0] == "IPv6" {
			args, rest = append(args, "-6"), rest[1:]
		}
		if len(rest) == 0 {
			break
		}
		args = append(args, "-s", rest[0])
		t.listed = args[1:3:3]
		args = append(args, flags(rest[1:])...)
	case len(f) >= 4 && f[0] == "->" && f[1] != "RemoteAddress:Port" && t.listed != nil:
		forward := map[string]string{"Masq": "-m", "Route": "-g", "Tunnel": "-i", "Local": "-m"}[f[2]]
		if forward == "" {
			t.Lost("it is not known what "+f[2]+" means, so this server is left out", "", place)
			return
		}
		if f[2] == "Local" {
			t.Lost("this server is this host itself, which takes what is for the service's address; the profile sends to the server's own address", "its program has to listen there, too", place)
		}
		args = append(append([]string{"-a"}, t.listed...), "-r", f[1], forward, "-w", f[3])
		if _, err := strconv.Atoi(f[3]); err != nil {
			args = nil
		}
	}
	if args == nil {
		return
	}
	t.ran = true
	var words []word
	for _, a := range args {
		words = append(words, word{Text: a, Place: importer.PlaceOf(t.Lines, line)})
	}
	if one, ok := t.parse(words, place); ok {
		t.do(one)
	}
}

// listed are the words behind a scheduler that have a value, as options.
var listed = map[string]string{"persistent": "-p", "mask": "-M", "pe": "--pe"}

// flags are the words behind a scheduler as options: (flag,flag) persistent 300
// mask 255.255.255.0 pe sip ops.
func flags(words []string) []string {
	var out []string
	for i, w := range words {
		switch {
		case strings.HasPrefix(w, "(") && strings.HasSuffix(w, ")"):
			out = append(out, "-b", strings.Trim(w, "()"))
		case w == "ops":
			out = append(out, "-o")
		case i > 0 && listed[words[i-1]] != "":
			out = append(out, listed[words[i-1]], w)
		}
	}
	return out
}
