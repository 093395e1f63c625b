//go:build linux

package web

// Overview: all services at a glance, what is not well first.

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"nlb/cmd/nlb/internal/metrics"
	"nlb/cmd/nlb/internal/text"
	"nlb/cmd/nlb/internal/view"
	"nlb/lb"
)

const (
	mostTroubles = 50  // that are listed
	mostRows     = 100 // of a page
)

// overview is what the first page shows.
type overview struct {
	Sentence  string
	Alarm     string // what is wrong with the agent; empty: nothing
	Announced string // addresses; empty: none
	Troubles  []row
	More      int // troubles that are not listed
	Search    string
	Rows      []row
	Found     string // how many there are
	Previous  string // links to other rows; empty: there are none
	Next      string
}

// row is a service in a list.
type row struct {
	Name, Link string
	State      state
	What       string // is not well
	Listen     string
	Up         string // 2 of 3
	Live       string
	Rate       string // new connections a second
}

// state is a word with a shape, for those who see no colors.
type state struct{ Class, Shape, Word string }

var (
	stateUp       = state{"up", "●", "up"}
	stateWarn     = state{"warn", "▲", "in part"}
	stateDown     = state{"down", "✖", "down"}
	stateOpen     = state{"down", "✖", "health ignored"}
	stateDraining = state{"drain", "◐", "draining"}
	stateDisabled = state{"drain", "◐", "disabled"}
	stateStandby  = state{"idle", "○", "standby"}
)

// serviceState is how a service is, what is not well in words, and whether that is
// trouble, and no order.
func serviceState(s *view.ShownService) (is state, what string, trouble bool) {
	up, ordered := 0, 0
	for i := range s.Backends {
		b := &s.Backends[i]
		if b.Works() {
			up++
		}
		if b.Standing.By != "" {
			ordered++
		}
	}
	count := fmt.Sprintf("%d of %d up", up, len(s.Backends))
	switch empty := s.Emptiness(); {
	case empty != "":
		return stateDown, count + ": " + empty, true
	case s.Open != "":
		return stateOpen, count + ": " + s.Open, true
	case up < len(s.Backends):
		return stateWarn, count, true
	case ordered > 0:
		return stateUp, text.Count(ordered, "order") + " in force", false
	}
	return stateUp, "", false
}

func (s *Server) row(service *view.ShownService, is state, what string) row {
	out := row{
		Name: service.Profile + "/" + service.Service.Name, State: is, What: what,
		Link: "/service/" + url.PathEscape(service.Profile) + "/" + url.PathEscape(service.Service.Name),
	}
	for i, l := range service.Service.Listen {
		if i == 3 {
			out.Listen += fmt.Sprintf(" and %d more", len(service.Service.Listen)-i)
			break
		}
		out.Listen += " " + l.String()
	}
	up, live := 0, 0
	for i := range service.Backends {
		b := &service.Backends[i]
		if b.Works() {
			up++
		}
		if b.Live != nil {
			live += *b.Live
		}
	}
	out.Up, out.Live, out.Rate = fmt.Sprintf("%d of %d", up, len(service.Backends)), strconv.Itoa(live), "–"
	if !service.Service.Tracked() {
		out.Live = "–"
	}
	if rates := s.history.service(service.Profile, service.Service.Name); len(rates) > 0 {
		out.Rate = rate(rates[len(rates)-1])
	}
	return out
}

// overview looks at all services, and shows those whose name or listen has a text.
func (s *Server) overview(all *view.Snapshot, query url.Values) *overview {
	out := &overview{Alarm: s.alarm(), Announced: strings.Join(all.Announced, ", "), Search: query.Get("q")}
	page, _ := strconv.Atoi(query.Get("page"))
	page = max(page, 1)
	count, found, trouble, first := 0, 0, 0, ""
	for service := range (metrics.Filter{}).Services(all) {
		count++
		is, what, wrong := serviceState(service)
		if what != "" && len(out.Troubles) < mostTroubles {
			out.Troubles = append(out.Troubles, s.row(service, is, what))
		} else if what != "" {
			out.More++
		}
		if wrong {
			if trouble++; trouble == 1 {
				first, _, _ = strings.Cut(what, ":")
				first = service.Profile + "/" + service.Service.Name + " has " + first
			}
		}
		if !matches(service, out.Search) {
			continue
		}
		if found++; found > (page-1)*mostRows && found <= page*mostRows {
			out.Rows = append(out.Rows, s.row(service, is, what))
		}
	}
	switch {
	case count == 0:
		out.Sentence = "Nothing is balanced here."
	case trouble == 0:
		out.Sentence = text.Count(count, "service") + ", none in trouble."
	case trouble == 1:
		out.Sentence = fmt.Sprintf("%s, 1 in trouble: %s.", text.Count(count, "service"), first)
	default:
		out.Sentence = fmt.Sprintf("%s, %d in trouble, first %s.", text.Count(count, "service"), trouble, first)
	}
	out.Found = text.Count(found, "service")
	link := func(page int) string {
		v := url.Values{"page": {strconv.Itoa(page)}}
		if out.Search != "" {
			v.Set("q", out.Search)
		}
		return "/?" + v.Encode() + "#services"
	}
	if page > 1 {
		out.Previous = link(page - 1)
	}
	if found > page*mostRows {
		out.Next = link(page + 1)
		out.Found += fmt.Sprintf(", of which these are %d to %d", (page-1)*mostRows+1, page*mostRows)
	}
	return out
}

// alarm is what is wrong with the agent itself.
func (s *Server) alarm() string {
	if trouble := s.board.Trouble(); trouble != "" {
		return trouble
	}
	if s.board.Still() > stillTime {
		return "The agent does not go on."
	}
	return ""
}

// matches reports whether a service is searched for.
func matches(s *view.ShownService, search string) bool {
	search = strings.ToLower(strings.TrimSpace(search))
	if search == "" || strings.Contains(strings.ToLower(s.Profile+"/"+s.Service.Name), search) {
		return true
	}
	return slices.ContainsFunc(s.Service.Listen, func(l lb.Listen) bool { return strings.Contains(l.String(), search) }) ||
		slices.ContainsFunc(s.Backends, func(b view.ShownBackend) bool {
			return strings.Contains(strings.ToLower(b.Name), search) || strings.Contains(b.Address.String(), search)
		})
}

// rate is how many a second, in few digits.
func rate(v float32) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}
