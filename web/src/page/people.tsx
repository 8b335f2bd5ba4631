/** The list of people, and the powers of those who run the room: admit, mute, remove, lock, lobby, close. */
import { useSignal } from '@preact/signals';
import type { ParticipantState } from '../client';
import { Dialog } from './dialog';
import { Icon } from './icons';
import { Menu, MenuItem } from './menu';
import type { Session } from './session';
import { Avatar } from './tile';

export function Knocking({ session }: { session: Session }) {
  const knocking = [...session.knocking.value];
  if (knocking.length === 0) return null;
  return (
    <section class="knocking" aria-label="Waiting to be let in">
      <h2>Waiting to be let in</h2>
      <ul>
        {knocking.map(([identity, name]) => (
          <li key={identity} class="person">
            <Avatar name={name} />
            <span class="person-name">{name}</span>
            <button
              type="button"
              class="button small accent"
              data-testid="admit"
              onClick={() => void session.ask({ type: 'moderate.admit', participant: identity })}
            >
              Admit
            </button>
            <button
              type="button"
              class="button small"
              data-testid="deny"
              onClick={() => void session.ask({ type: 'moderate.deny', participant: identity })}
            >
              Deny
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

function PersonMenu({ session, person }: { session: Session; person: ParticipantState }) {
  const { identity, name } = person;
  const on = (source: 'microphone' | 'camera' | 'screen') => session.hasTrack(identity, source);
  return (
    <Menu icon="more" label={`What to do about ${name}`} class="icon-button small">
      {(close) => {
        const pick = (action: () => void) => () => {
          close();
          action();
        };
        const mute = (source?: 'camera' | 'screen') =>
          pick(
            () =>
              void session.ask({ type: 'moderate.mute', participant: identity, ...(source && { source }) }),
          );
        const nothing = !on('microphone') && !on('camera') && !on('screen');
        return (
          <>
            {on('microphone') && <MenuItem icon="mic-off" label="Mute" onPick={mute()} />}
            {on('camera') && <MenuItem icon="camera-off" label="Turn camera off" onPick={mute('camera')} />}
            {on('screen') && <MenuItem icon="screen-off" label="Stop screen share" onPick={mute('screen')} />}
            {nothing && <p class="menu-note">Nothing of theirs is on.</p>}
            <MenuItem
              icon="door"
              label="Remove from room"
              danger
              onPick={pick(() => void session.ask({ type: 'moderate.remove', participant: identity }))}
            />
          </>
        );
      }}
    </Menu>
  );
}

function Person({ session, person }: { session: Session; person: ParticipantState }) {
  const { identity, name, grant, hand_raised, connected } = person;
  const self = identity === session.me.value;
  void session.local.value;
  const muted = !(self ? session.room.local.isOn('microphone') : session.hasTrack(identity, 'microphone'));
  return (
    <li class="person">
      <Avatar name={name} />
      <span class="person-name">
        {name}
        <small>
          {[self && 'you', grant.admin && 'runs the room', !connected && 'connection lost']
            .filter(Boolean)
            .join(' · ')}
        </small>
      </span>
      {hand_raised && (
        <span class="mark-hand" title="Hand raised">
          <Icon name="hand" />
          <span class="sr-only">Hand raised</span>
        </span>
      )}
      <span class={muted ? 'mark-off' : 'mark-on'} title={muted ? 'Muted' : 'Microphone on'}>
        <Icon name={muted ? 'mic-off' : 'mic'} />
        <span class="sr-only">{muted ? 'Muted' : 'Microphone on'}</span>
      </span>
      {!self && session.grant.value.admin && <PersonMenu session={session} person={person} />}
    </li>
  );
}

function Switch(props: { label: string; hint: string; on: boolean; onChange: (on: boolean) => void }) {
  return (
    <label class="switch">
      <span>
        {props.label}
        <small>{props.hint}</small>
      </span>
      <input
        type="checkbox"
        checked={props.on}
        onChange={({ currentTarget }) => {
          const { checked } = currentTarget;
          // The room's own state decides what is shown.
          currentTarget.checked = props.on;
          props.onChange(checked);
        }}
      />
    </label>
  );
}

function RoomPowers({ session }: { session: Session }) {
  const closing = useSignal(false);
  const state = session.state.value;
  if (!state) return null;
  return (
    <section class="powers" aria-label="Room settings">
      <h3>The room</h3>
      <Switch
        label="Locked"
        hint="Nobody new gets in"
        on={state.locked}
        onChange={(locked) => void session.ask({ type: 'room.update', locked })}
      />
      <Switch
        label="Lobby"
        hint="New people wait until they are let in"
        on={state.lobby}
        onChange={(lobby) => void session.ask({ type: 'room.update', lobby })}
      />
      <Switch
        label="Private"
        hint="Only people with an invitation"
        on={state.access === 'private'}
        onChange={(on) => void session.ask({ type: 'room.update', access: on ? 'private' : 'open' })}
      />
      <button
        type="button"
        class="button danger"
        onClick={() => {
          closing.value = true;
        }}
      >
        Close the room for everyone
      </button>
      {closing.value && (
        <Dialog
          title="Close the room?"
          onClose={() => {
            closing.value = false;
          }}
        >
          <p>Everybody is disconnected. What was written stays.</p>
          <div class="dialog-actions">
            <button
              type="button"
              class="button"
              onClick={() => {
                closing.value = false;
              }}
            >
              Keep it open
            </button>
            <button
              type="button"
              class="button danger"
              onClick={() => void session.ask({ type: 'room.close' })}
            >
              Close the room
            </button>
          </div>
        </Dialog>
      )}
    </section>
  );
}

export function PeoplePanel({ session }: { session: Session }) {
  const people = [...session.participants.value.values()];
  // Raised hands first, so that nobody is overlooked.
  people.sort((a, b) => Number(b.hand_raised) - Number(a.hand_raised));
  return (
    <section class="panel-scroll" tabIndex={0} aria-label="People in the room">
      <Knocking session={session} />
      <ul class="people">
        {people.map((person) => (
          <Person key={person.identity} session={session} person={person} />
        ))}
      </ul>
      {session.grant.value.admin && <RoomPowers session={session} />}
    </section>
  );
}
