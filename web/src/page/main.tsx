/** Where the page starts. */
import '@fontsource-variable/figtree/wght.css';
import './styles/base.css';
import './styles/parts.css';
import './styles/overlays.css';
import './styles/home.css';
import './styles/call.css';
import './styles/tile.css';
import './styles/panels.css';
import './styles/chat.css';
import './styles/files.css';
import './styles/pay.css';
import './styles/stream.css';
import './styles/player.css';
import './styles/recordings.css';
import { render } from 'preact';
import { ContentPage } from './content';
import { Home } from './home';
import { RoomPage } from './room-page';
import { route } from './router';
import { startTheme } from './theme';
import { Toasts } from './toasts';

function App() {
  const { value } = route;
  return (
    <>
      {value.page === 'home' && <Home />}
      {value.page === 'room' && <RoomPage key={value.room} room={value.room} />}
      {value.page === 'content' && <ContentPage room={value.room} content={value.content} />}
      <Toasts />
    </>
  );
}

const root = document.getElementById('app');
if (root) {
  startTheme();
  render(<App />, root);
}
