package shell

// Playbooks of Ansible, and cloud-init: commands in lists, and the module iptables,
// whose arguments become those of the command that it runs.

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"mvdan.cc/sh/v3/syntax"

	"nlb/lb/importer"
)

var (
	playbook     = regexp.MustCompile(`^#cloud-config|^\s*(- hosts|- name|runcmd|bootcmd|tasks)\s*:`)
	playbookLine = regexp.MustCompile(`^\s*(- +)?((ansible\.builtin\.)?(command|shell|raw|cmd|- name):\s+)?([\["']\s*)*`)
	module       = regexp.MustCompile(`^\s*(- +)?(ansible\.builtin\.)?iptables\s*:`)
	jinja        = regexp.MustCompile(`\{\{[^{}]*\}\}`)
)

// plays are the commands of a playbook.
func (r *reader) plays() []*fragment {
	out := r.each(play)
	if slices.ContainsFunc(r.lines, module.MatchString) {
		out = append(out, r.tasks()...)
	}
	slices.SortStableFunc(out, func(a, b *fragment) int { return cmp.Compare(a.first, b.first) })
	return out
}

// play is a line of a playbook, or of cloud-init.
func play(line string) (string, bool) {
	if !listed.MatchString(line) || strings.HasPrefix(strings.TrimSpace(line), "#") {
		return "", false
	}
	text, _ := behind(playbookLine, line)
	switch before := line[:len(line)-len(strings.TrimLeft(text, " "))]; {
	case strings.Contains(before, "["):
		text = strings.NewReplacer(",", " ", "]", " ", `"`, " ", "'", " ").Replace(text)
	case strings.HasSuffix(before, `"`) || strings.HasSuffix(before, "'"):
		text = strings.TrimRight(text, `"' `)
	}
	return Unknowns(text), true
}

// Playbook reports whether a text is a playbook, or cloud-init.
func Playbook(lines []string) bool {
	return slices.ContainsFunc(lines, func(line string) bool {
		line = line[:min(len(line), 1<<12)]
		return (strings.Contains(line, ":") || strings.HasPrefix(line, "#cloud")) && playbook.MatchString(line)
	})
}

// Unknowns are variables of a shell in place of Ansible's, which nobody sets.
func Unknowns(text string) string {
	return jinja.ReplaceAllStringFunc(text, func(s string) string {
		name := []byte("_" + s[min(3, len(s)-2):len(s)-2] + "_")
		for i, c := range name {
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
				continue
			}
			name[i] = '_'
		}
		return "${" + string(name) + "}"
	})
}

// tasks are those of the module iptables.
func (r *reader) tasks() (out []*fragment) {
	loader, err := yaml.NewLoader(strings.NewReader(strings.Join(r.lines, "\n")))
	for err == nil {
		var doc yaml.Node
		if err = loader.Load(&doc); err == nil {
			r.task(&doc, 0, &out)
		}
	}
	if err != io.EOF {
		r.draft.Lost("this playbook is no YAML, so its tasks with the module iptables are not read", "", importer.Place{Line: 1, Column: 1})
	}
	return out
}

// maxNesting is how deep tasks are looked for: blocks nest.
const maxNesting = 50

func (r *reader) task(n *yaml.Node, depth int, out *[]*fragment) {
	if depth > maxNesting {
		return
	}
	keys := map[string]*yaml.Node{}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		keys[strings.TrimPrefix(key.Value, "ansible.builtin.")] = value
		if name := strings.TrimPrefix(key.Value, "ansible.builtin."); name == "iptables" && value.Kind == yaml.MappingNode {
			defer func() {
				at := importer.PlaceOf(r.lines, key.Line-1)
				*out = append(*out, &fragment{first: key.Line - 1, lines: 1, at: &at, text: wrapped(keys, rule(value))})
			}()
		}
	}
	for _, child := range n.Content {
		r.task(child, depth+1, out)
	}
}

// wrapped is a command with what its task says of when it runs.
func wrapped(task map[string]*yaml.Node, command string) string {
	for _, word := range []string{"loop", "with_items"} {
		list := task[word]
		if list == nil {
			continue
		}
		if items := scalars(list); items != nil {
			command = strings.NewReplacer("{{ item }}", "$item", "{{item}}", "$item").Replace(command)
			command = fmt.Sprintf("for item in %s; do %s; done", strings.Join(quoted(items), " "), command)
		}
	}
	if task["when"] != nil {
		command = "if ansible_when; then " + command + "; fi"
	}
	return Unknowns(command)
}

// scalars are the values of a list, or a single one; nil: it is something else.
func scalars(n *yaml.Node) (out []string) {
	switch n.Kind {
	case yaml.ScalarNode:
		return []string{n.Value}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return nil
			}
			out = append(out, item.Value)
		}
	}
	return out
}

// quoted are words as a shell reads them; Ansible's variables stay.
func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		if out[i] = `"` + w + `"`; !jinja.MatchString(w) {
			if q, err := syntax.Quote(w, syntax.LangBash); err == nil {
				out[i] = q
			}
		}
	}
	return out
}

// moduleOptions are the arguments of iptables that those of the module become, in the order in
// which the module writes them (ansible/modules/iptables.py). What is not here is
// --ARGUMENT.
var moduleOptions = []struct{ argument, option string }{
	{"protocol", "-p"},
	{"source", "-s"},
	{"destination", "-d"},
	{"match", "-m"},
	{"tcp_flags", "--tcp-flags"},
	{"jump", "-j"},
	{"goto", "-g"},
	{"in_interface", "-i"},
	{"out_interface", "-o"},
	{"fragment", "-f"},
	{"set_counters", "-c"},
	{"source_port", "--sport"},
	{"destination_port", "--dport"},
	{"destination_ports", "-m multiport --dports"},
	{"ctstate", "-m conntrack --ctstate"},
	{"src_range", "-m iprange --src-range"},
	{"dst_range", "-m iprange --dst-range"},
	{"limit", "-m limit --limit"},
	{"uid_owner", "-m owner --uid-owner"},
	{"comment", "-m comment --comment"},
}

// about are arguments of the module that say how it runs, or which rule, not what.
var about = []string{"table", "chain", "action", "rule_num", "state", "ip_version", "wait", "flush", "policy", "chain_management", "numeric", "syn"}

// rule is the command that the module runs; empty: none.
func rule(n *yaml.Node) string {
	args := map[string][]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		args[n.Content[i].Value] = scalars(n.Content[i+1])
	}
	one := func(name, usual string) string {
		return strings.Join(quoted([]string{cmp.Or(strings.Join(args[name], ","), usual)}), "")
	}
	program := "iptables"
	if one("ip_version", "ipv4") == "ipv6" {
		program = "ip6tables"
	}
	words := []string{program, "-t", one("table", "filter")}
	yes := func(name string) bool {
		return slices.Contains([]string{"true", "yes", "True", "Yes", "on"}, one(name, "no"))
	}
	switch {
	case yes("flush") && args["chain"] == nil:
		return strings.Join(append(words, "-F"), " ")
	case yes("flush"):
		return strings.Join(append(words, "-F", one("chain", "")), " ")
	case args["policy"] != nil:
		return strings.Join(append(words, "-P", one("chain", ""), one("policy", "")), " ")
	case one("state", "present") == "absent":
		words = append(words, "-D", one("chain", ""))
	case one("action", "append") == "insert":
		words = append(words, "-I", one("chain", ""))
		if args["rule_num"] != nil {
			words = append(words, one("rule_num", ""))
		}
	default:
		words = append(words, "-A", one("chain", ""))
	}
	add := func(option string, values []string) {
		for _, v := range values {
			rest, not := strings.CutPrefix(v, "!")
			written := option
			if not {
				at := strings.LastIndexByte(option, ' ') + 1 // behind -m multiport
				written = option[:at] + "! " + option[at:]
			}
			words = append(words, written, quoted([]string{strings.TrimSpace(rest)})[0])
		}
	}
	for _, o := range moduleOptions {
		values := args[o.argument]
		if len(values) > 1 && o.argument != "match" {
			values = []string{strings.Join(values, ",")}
		}
		add(o.option, values)
		delete(args, o.argument)
		if o.argument == "protocol" && args["syn"] != nil {
			words = append(words, map[bool]string{true: "! --syn", false: "--syn"}[one("syn", "") == "negate"])
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if name := n.Content[i].Value; args[name] != nil && !slices.Contains(about, name) {
			add("--"+strings.ReplaceAll(name, "_", "-"), args[name])
		}
	}
	return strings.Join(words, " ")
}
