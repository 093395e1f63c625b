//go:build linux

package probe

// The kind agent: the words of HAProxy's agent-check
// (https://docs.haproxy.org/3.2/configuration.html#5.2-agent-check).

import (
	"bufio"
	"context"
	"io"
	"strconv"
	"strings"
)

// maxLine is the size of an agent's answer, in bytes.
const maxLine = 1 << 10

// askAgent is the kind agent. An agent only has a say: as with HAProxy, one that
// cannot be reached, or says nothing of the kind, is no failure of the server.
func askAgent(ctx context.Context, t Target) Outcome {
	c, err := dial(ctx, t, "tcp")
	if err != nil {
		return saysNothing(fault(ctx, "agent", err))
	}
	defer c.Close()
	line, err := bufio.NewReaderSize(io.LimitReader(c, maxLine), maxLine).ReadString('\n')
	if err != nil && (err != io.EOF || line == "") {
		return saysNothing(fault(ctx, "agent", err))
	}
	return advice(line)
}

// saysNothing is the outcome of an agent that does not say anything.
func saysNothing(o Outcome) Outcome {
	o.Ours, o.Refused = true, false
	return o
}

// advice reads an agent's line: words in any case, separated by spaces, tabs or
// commas, and a reason behind '#'. Of words that contradict each other the last
// one counts; those that are unknown, and maxconn, do not.
func advice(line string) Outcome {
	line, why, _ := strings.Cut(strings.TrimRight(line, "\r\n"), "#")
	o := Outcome{OK: true, Percent: -1}
	var said []string
	state, admin := "", ""
	for _, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
		word = strings.ToLower(word)
		switch word {
		case "up", "down", "stopped", "fail", "failed":
			state = word
		case "ready", "drain", "maint":
			admin = word
		default:
			number, ok := strings.CutSuffix(word, "%")
			n, err := strconv.ParseUint(number, 10, 16)
			if !ok || err != nil {
				continue
			}
			o.Percent = int(min(n, 100))
		}
		said = append(said, word)
	}
	if len(said) == 0 {
		return unable("agent", "no word that is known")
	}
	o.OK = (state == "" || state == "up") && admin != "maint"
	o.Drain = admin == "drain"
	text := strings.Join(said, " ")
	if why = strings.TrimSpace(why); why != "" {
		text += ": " + why
	}
	o.Reason = "agent: " + text
	return o
}
